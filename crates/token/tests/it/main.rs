//! Signing with softhsm2. Its library reads its configuration's place from the environment, so the
//! tests that use it run in a child process of this one, which is given that environment.

#[cfg(test)]
mod hsm;
#[cfg(test)]
mod softhsm;
