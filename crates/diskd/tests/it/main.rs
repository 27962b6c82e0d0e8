//! The real `vouchsafe-disk` process: created volumes, the served export, the control socket, and
//! what is left after it is killed.

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod create;
#[cfg(test)]
mod guest;
#[cfg(test)]
#[path = "../../../disk/benches/disk/master.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "shared with the benches"
)]
mod master;
#[cfg(test)]
mod process;
#[cfg(test)]
mod qemu;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod vhost;
