//! The authority as a process, with software TPMs for itself and for the hosts that speak to it.

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod appraisal;
#[cfg(test)]
mod deposits;
#[cfg(test)]
mod duplications;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod host_client;
#[cfg(test)]
mod launch;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod services;
#[cfg(test)]
mod support;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod vtpm;
