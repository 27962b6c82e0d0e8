//! Issuing and verifying, with `openssl` as the second opinion.

#[cfg(test)]
mod bridge;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod crl;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod issue;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod ocsp;
#[cfg(test)]
mod pkits;
#[cfg(test)]
mod refuse;
#[cfg(test)]
mod revoke;
#[cfg(test)]
mod support;
#[cfg(test)]
mod swtpm;
