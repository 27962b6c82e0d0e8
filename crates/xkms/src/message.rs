//! Every message of the XKMS 2.0 schema, typed, read and written.
//!
//! [`Request::read`] and [`Answer::read`] take an element and accept exactly what the schema
//! accepts, short of a few shapes that nothing needs (a `MessageExtension` other than our own of
//! results: refused by name).
//! `to_element` writes; what is written validates against the W3C schema.
//!
//! **Invariants:** a value of these types was checked when it was read; a key binding's `Status` is
//! never *Valid* unless all four reasons were found valid ([`Status::judged`]). The signatures of a
//! message are not in these types: see [`crate::dsig`] for who may claim that one verified.

mod answer;
mod binding;
mod fields;
mod head;
mod key_info;
mod knowledge;
mod name;
mod rejection;
mod request;

pub use answer::{Answer, AnswerBody, Counts};
pub use binding::{
    Binding, KeyBinding, PrototypeKeyBinding, QueryKeyBinding, Status, UnverifiedKeyBinding,
    UseKeyWith, ValidityInterval,
};
pub use head::{PendingNotification, RequestHead, ResultHead, is_id, signature_of};
pub use key_info::{KeyInfo, KeyInfoItem, X509Item};
pub use name::{KeyUsage, Major, Mechanism, Minor, Reason, RespondWith, StatusValue};
pub use rejection::MessageRejection;
pub use request::{
    Authentication, MAX_COMPOUND, NotBoundAuthentication, Operation, Request, RequestBody,
    RevokeProof,
};

pub(crate) use fields::Fields;

#[cfg(test)]
mod tests;
