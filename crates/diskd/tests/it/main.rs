//! The real `vouchsafe-disk` process: created volumes, the served export, the control socket, and
//! what is left after it is killed.

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod boot;
#[cfg(test)]
mod create;
#[cfg(test)]
#[path = "../../../disk/tests/it/guest.rs"]
#[expect(dead_code, reason = "shared with the tests of `disk`")]
mod driver;
#[cfg(test)]
mod guest;
#[cfg(test)]
#[path = "../../../disk/benches/disk/master.rs"]
#[expect(unreachable_pub, clippy::cast_possible_truncation, reason = "shared with the benches")]
mod master;
#[cfg(test)]
mod process;
#[cfg(test)]
mod qemu;
#[cfg(test)]
mod rekey;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod through;
#[cfg(test)]
mod vhost;
