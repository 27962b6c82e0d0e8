//! Which failures are refusals, and by what name.

use disk::VolumeError;
use serve::{
    exit::Exit,
    shell::{self, Refused},
};

/// Longest key, as LUKS has it.
pub(crate) const KEY_MAX: usize = 512;

/// Tells a failure or refusal; gives the exit status.
pub(crate) fn failure(error: &anyhow::Error) -> Exit {
    let rejection = error.downcast_ref::<VolumeError>().and_then(VolumeError::rejection);
    let refused = rejection.map(|said| Refused { code: said.code(), detail: said.to_string() });
    shell::failure(error.as_ref(), refused.as_ref())
}
