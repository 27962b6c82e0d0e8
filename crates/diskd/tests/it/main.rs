//! The real `vouchsafe-disk` process: created volumes, the served export, the control socket, and
//! what is left after it is killed.

#[cfg(test)]
mod create;
#[cfg(test)]
mod process;
#[cfg(test)]
mod qemu;
#[cfg(test)]
mod serving;
