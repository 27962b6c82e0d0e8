//! The TPM client against a real swtpm and against tpm2-tools, and its parsers against hostile
//! bytes. A test that lacks its program says so and passes.

#[cfg(test)]
mod actor;
#[cfg(test)]
mod client;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod resident;
#[cfg(test)]
mod sealing;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tools;
