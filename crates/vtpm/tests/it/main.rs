//! The vTPM process on a real swtpm, with a test client in QEMU's place. A test that lacks a
//! program says so and passes.

#[cfg(test)]
mod boot;
#[cfg(test)]
mod injection;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod manufacture;
#[cfg(test)]
#[path = "../../../tpm/tests/it/programs.rs"]
mod programs;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod support;
