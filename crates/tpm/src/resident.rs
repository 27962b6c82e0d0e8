//! Keys that live in a host's TPM and go from it into another host's only as the authority says.
//!
//! ```text
//!   authPolicy = PolicyAuthorize(authority's key, "vouchsafe:key-duplication:v1")
//!   approved   = PolicyDuplicationSelect(this key, that parent)       signed for one key and one move
//!
//!   target: certified ── parent, TPM2_Certify by its AK ──► authority: its AK? a parent that stays?
//!   source: leave ── approval ─► TPM2_Duplicate ── twice wrapped ──► target: arrive (Import, Load)
//! ```
//!
//! A key agrees (ECDH on P-256) and does nothing else; what is sealed to its public half opens with
//! it wherever it is. Its private half is in the clear in no place but a TPM: the source's TPM itself
//! refuses every parent that the authority did not name.
//!
//! **Invariants:** an approval is for one key and one parent; a parent is fixed to its TPM and wraps
//! only; every key has the policy of its authority, so that one that came may go on.

use model::{HostId, MigrationId, Nonce, Secret};

use crate::{
    auth::{Auth, EMPTY},
    client::{Certification, Object, Tpm},
    crypt,
    error::{Malformed, TpmError},
    lease::Approver,
    policy::Policy,
    public::{Attributes, Key, Name, Public, Scheme},
    qualifying::{Purpose, QualifyingData},
    sealed::{Duplicate, KeyBlob},
    signature::Signature,
    template,
};

/// The policyRef of approvals: none of another kind serves here.
const REFERENCE: &[u8] = b"vouchsafe:key-duplication:v1";

/// What a parent must be.
const PARENT: Attributes = Attributes::RESTRICTED
    .and(Attributes::DECRYPT)
    .and(Attributes::FIXED_TPM)
    .and(Attributes::FIXED_PARENT)
    .and(Attributes::SENSITIVE_DATA_ORIGIN);

fn policy(approver: &Approver, approval: Option<(&Name, &Name, Signature)>) -> Policy {
    let (before, signature) = match approval {
        Some((key, parent, signature)) => (Policy::new().duplication(key, parent), Some(signature)),
        None => (Policy::new(), None),
    };
    before.authorize(&approver.0, REFERENCE, signature)
}

/// What the authority signs (ECDSA with SHA-256), so that the key with this Name may go to this
/// parent.
#[must_use]
pub fn approval(key: &Name, parent: &Name) -> Vec<u8> {
    let digest = Policy::new().duplication(key, parent).digest();
    Policy::approval_message(&digest, REFERENCE)
}

/// qualifyingData with which a target's AK certifies the parent for one migration.
#[must_use]
pub fn qualifying(migration: &MigrationId, source: &HostId, target: &HostId) -> QualifyingData {
    let nonce = Nonce(crypt::sha256(&[&migration.0]));
    let parts = [source.as_str().as_bytes(), target.as_str().as_bytes()];
    QualifyingData::bind(Purpose::KeyParent, &nonce, &parts)
}

/// Whether a public area is that of a key that cannot leave its TPM and wraps, and does nothing else.
#[must_use]
pub fn is_parent(public: &Public) -> bool {
    let attributes = public.attributes();
    attributes.contains(PARENT)
        && !attributes.contains(Attributes::SIGN)
        && public.name_alg() == model::HashAlg::Sha256
        && public.verifying_key().is_ok()
}

/// Whether a public area is that of a key as [`make`] makes them for this authority.
#[must_use]
pub fn is_resident(public: &Public, approver: &Approver) -> bool {
    let digest = policy(approver, None).digest();
    let template = Public::parse(template::movable_p256(&digest).as_bytes());
    let kind = matches!(public.key(), Key::Ecc { scheme: Scheme::Null, .. });
    template.is_ok_and(|template| {
        kind && template.attributes() == public.attributes()
            && template.policy() == public.policy()
            && template.name_alg() == public.name_alg()
    })
}

/// The public half, an uncompressed point.
///
/// # Errors
/// [`Malformed`] for anything but a P-256 key.
pub fn point(public: &Public) -> Result<Vec<u8>, Malformed> {
    match public.key() {
        Key::Ecc { x, y, .. } => Ok([&[4][..], x, y].concat()),
        Key::Rsa { .. } | Key::KeyedHash { .. } | Key::Symmetric => {
            Err(Malformed::Unsupported { what: "public key type", value: 0 })
        }
    }
}

/// Makes a key under `parent`.
///
/// # Errors
/// [`TpmError`].
pub fn make(tpm: &mut Tpm, parent: &Object, approver: &Approver) -> Result<KeyBlob, TpmError> {
    let template = template::movable_p256(&policy(approver, None).digest());
    tpm.create(parent, Auth::none(), &template, &EMPTY, &[])
}

/// What the key and a point (uncompressed) agree on; encrypted on its way.
///
/// # Errors
/// [`TpmError`].
pub fn agree(
    tpm: &mut Tpm,
    parent: &Object,
    blob: &KeyBlob,
    point: &[u8],
) -> Result<Secret<Vec<u8>>, TpmError> {
    let wrong = TpmError::malformed("point");
    let halves = point.strip_prefix(&[4]).and_then(|both| both.split_first_chunk::<32>());
    let both = halves.and_then(|(x, y)| Some((x, y.try_into().ok()?)));
    let (x, y): (&[u8; 32], &[u8; 32]) =
        both.ok_or_else(|| wrong(Malformed::Value { what: "point" }))?;
    tpm.scoped(|tpm| {
        let key = tpm.load(parent, Auth::none(), blob)?;
        let mut session = tpm.start_hmac_session(parent)?;
        tpm.ecdh_zgen(&key, &mut session, (x, y))
    })
}

/// Certifies `parent` by the AK for one migration.
///
/// # Errors
/// [`TpmError`].
pub fn certified(
    tpm: &mut Tpm,
    (parent, ak): (&Object, &Object),
    qualifying: &QualifyingData,
) -> Result<Certification, TpmError> {
    tpm.certify(parent, &EMPTY, ak, &EMPTY, qualifying)
}

/// Duplicates the key for `new_parent` with the authority's signature (ECDSA-Sig-Value, DER) over
/// [`approval`].
///
/// # Errors
/// [`TpmError`]; [`TpmError::is_policy_refusal`] if the approval is for another parent or key.
pub fn leave(
    tpm: &mut Tpm,
    (parent, blob): (&Object, &KeyBlob),
    new_parent: &Public,
    (approver, signature): (&Approver, &[u8]),
) -> Result<Duplicate, TpmError> {
    let malformed = TpmError::malformed("approval");
    let signature = Signature::from_ecdsa_der(signature).map_err(malformed)?;
    let policy = policy(approver, Some((&blob.public.name(), &new_parent.name(), signature)));
    tpm.scoped(|tpm| {
        let mut session = tpm.start_policy_session(Some(parent))?;
        policy.satisfy(tpm, &mut session)?;
        let key = tpm.load(parent, Auth::none(), blob)?;
        let new_parent = tpm.load_external(new_parent)?;
        tpm.duplicate(&key, &mut session, &new_parent)
    })
}

/// Takes a key that came for `parent`, and loads it once, so that it is known to be whole.
///
/// # Errors
/// [`TpmError`]; [`TpmError::Policy`] if it is no such key of this authority.
pub fn arrive(
    tpm: &mut Tpm,
    parent: &Object,
    approver: &Approver,
    duplicate: &Duplicate,
) -> Result<KeyBlob, TpmError> {
    if !is_resident(&duplicate.blob.public, approver) {
        return Err(TpmError::Policy("it is no key of this authority's hosts"));
    }
    tpm.scoped(|tpm| {
        let blob = tpm.import_duplicate(parent, duplicate)?;
        tpm.load(parent, Auth::none(), &blob)?;
        Ok(blob)
    })
}
