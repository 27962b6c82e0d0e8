//! The keeper of the trust service: every operation, every refusal by name, what survives a kill.

#[cfg(test)]
mod centre;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod grade;
#[cfg(test)]
mod import;
#[cfg(test)]
mod migrate;
#[cfg(test)]
mod news;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod pending;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod recover;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod resident;
#[cfg(test)]
mod size;
#[cfg(test)]
mod support;
