//! Who the host is to the authority: enrolled once, then proved again and again.
//!
//! ```text
//!   no host.json --token--> POST enrol -> ActivateCredential -> POST proof -> host.json
//!   host.json -> challenge -> quote over session keys -> POST attest -> Session
//!       ^                         at half its life, or on demand               |
//!       └----------------------------------------------------------------------┘
//!   not approved yet, not trusted, authority away: again after a wait that grows to its limit
//! ```

mod enrol;
mod session;

pub(crate) use self::{
    enrol::{Enrolment, enrol},
    session::{Link, Session, keep},
};
