//! The kind of answer that a request to the keeper has; everything else is a failure.

use model::keys::{
    Found,
    order::{AuthenticationKey, Counts, KeyFailure, KeyOutcome, NamedKey},
    rpc::{Collected, KeyAnswer},
};

macro_rules! expected {
    ($($name:ident: $variant:ident -> $kind:ty;)*) => {
        $(
            /// What the answer holds.
            ///
            /// # Errors
            /// The keeper's failure; [`KeyFailure::Internal`] if it answered something else.
            pub(super) fn $name(answer: KeyAnswer) -> Result<$kind, KeyFailure> {
                if let KeyAnswer::$variant(value) = answer { Ok(value) } else { Err(failure(&answer)) }
            }
        )*
    };
}

expected! {
    collected: Collected -> Option<Collected>;
    found: Found -> Found;
    key: Key -> Option<AuthenticationKey>;
    keys: Keys -> Vec<NamedKey>;
    outcome: Outcome -> KeyOutcome;
    progress: Progress -> Option<Counts>;
    published: Published -> model::api::Bytes;
}

/// Whether it was written down.
///
/// # Errors
/// As for the others.
pub(super) fn noted(answer: &KeyAnswer) -> Result<(), KeyFailure> {
    if matches!(answer, KeyAnswer::Noted) { Ok(()) } else { Err(failure(answer)) }
}

fn failure(answer: &KeyAnswer) -> KeyFailure {
    if let KeyAnswer::Failed(failure) = answer {
        return *failure;
    }
    tracing::error!("the keeper answered something else than was asked");
    KeyFailure::Internal
}
