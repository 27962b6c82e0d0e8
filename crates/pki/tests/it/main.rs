//! Issuing and verifying, with `openssl` as the second opinion.

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test stops at anything else")]
mod acme;
#[cfg(test)]
mod bridge;
#[cfg(test)]
mod cmp;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]
mod corpus;
#[cfg(test)]
mod crl;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]
mod forge;
#[cfg(test)]
mod http;
#[cfg(test)]
mod issue;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod ocsp;
#[cfg(test)]
mod passport;
#[cfg(test)]
mod pkits;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test stops at anything else")]
mod provider;
#[cfg(test)]
mod refuse;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test stops at anything else")]
#[expect(clippy::cloned_ref_to_slice_refs, reason = "one form for one CRL and for several")]
mod revoke;
#[cfg(test)]
mod support;
#[cfg(test)]
mod swtpm;
