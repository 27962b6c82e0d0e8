//! Sealing to PCRs, to approvals, to a clock; and data wrapped outside the TPM.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use model::{Digest, Secret};
use tpm::{
    Auth, AuthValue, Comparison, Hierarchy, KeyBlob, PcrSelection, Policy, Public, Signature, Tpm,
    TpmError, software, template,
};

use crate::support::Swtpm;

fn srk(tpm: &mut Tpm) -> tpm::Object {
    let empty = AuthValue::empty();
    tpm.create_primary(Hierarchy::Owner, Auth::none(), &template::srk_p256(), &empty).unwrap()
}

/// A software signing key as a public area that a TPM can load.
fn approver() -> (EcdsaKeyPair, Public) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let spki = tpm::VerifyingKey::P256 {
        x: key.public_key().as_ref()[1..33].try_into().unwrap(),
        y: key.public_key().as_ref()[33..].try_into().unwrap(),
    };
    (key, Public::signing_key(&spki).unwrap())
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Signature {
    let signature = key.sign(&SystemRandom::new(), message).unwrap();
    Signature::from_p1363(signature.as_ref().try_into().unwrap())
}

fn secret() -> Secret<Vec<u8>> {
    Secret::new(b"the key of all keys".to_vec())
}

#[test]
fn sealed_data_opens_only_while_the_pcrs_are_right() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let parent = srk(&mut tpm);
    let selection = PcrSelection::sha256(&[0, 16]);
    let policy = Policy::new().pcr(&selection, &tpm.pcr_read(&selection).unwrap()).unwrap();
    let sealed = tpm.seal(&parent, &policy.digest(), &secret()).unwrap();
    let sealed = KeyBlob::parse(&sealed.to_bytes().unwrap()).unwrap();
    assert_eq!(tpm.unseal(&parent, &sealed, &policy).unwrap().expose(), secret().expose());
    tpm.pcr_extend(16, &[Digest::sha256([1; 32])]).unwrap();
    let refused = tpm.unseal(&parent, &sealed, &policy).unwrap_err();
    assert!(refused.is_policy_refusal(), "{refused}");
    // The right PCRs under the wrong policy do not help either.
    let other = Policy::new().pcr(&selection, &tpm.pcr_read(&selection).unwrap()).unwrap();
    let refused = tpm.unseal(&parent, &sealed, &other).unwrap_err();
    assert!(refused.is_policy_refusal(), "{refused}");
    assert_eq!(tpm.transient_handles().unwrap(), [parent.handle()]);
}

#[test]
fn an_approval_opens_what_was_sealed_to_its_key_and_no_other() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let parent = srk(&mut tpm);
    let (key, public) = approver();
    let deadline = tpm.read_clock().unwrap().clock.clock + 3_600_000;
    let limits = |policy: Policy| policy.clock(Comparison::AtMost, deadline);
    let sealed_to = limits(Policy::new().authorize(&public, b"generation 1", None));
    let sealed = tpm.seal(&parent, &sealed_to.digest(), &secret()).unwrap();

    let selection = PcrSelection::sha256(&[16]);
    let state = Policy::new().pcr(&selection, &tpm.pcr_read(&selection).unwrap()).unwrap();
    let message = Policy::approval_message(&state.digest(), b"generation 1");
    let open = |signature: Option<Signature>, policy_ref: &[u8]| {
        limits(state.clone().authorize(&public, policy_ref, signature))
    };
    let approved = open(Some(sign(&key, &message)), b"generation 1");
    assert_eq!(tpm.unseal(&parent, &sealed, &approved).unwrap().expose(), secret().expose());

    let missing = tpm.unseal(&parent, &sealed, &open(None, b"generation 1")).unwrap_err();
    assert!(matches!(missing, TpmError::Policy(_)), "{missing}");
    let forged = open(Some(sign(&approver().0, &message)), b"generation 1");
    let forged = tpm.unseal(&parent, &sealed, &forged).unwrap_err();
    assert!(forged.is_policy_refusal(), "{forged}");
    let later = Policy::approval_message(&state.digest(), b"generation 2");
    let later = open(Some(sign(&key, &later)), b"generation 2");
    let later = tpm.unseal(&parent, &sealed, &later).unwrap_err();
    assert!(later.is_policy_refusal(), "{later}");
}

#[test]
fn a_lease_ends_when_the_clock_passes_it() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let parent = srk(&mut tpm);
    let now = tpm.read_clock().unwrap().clock;
    let lease = Policy::new()
        .clock(Comparison::AtMost, now.clock + 400)
        .reset_count(Comparison::Equal, now.reset_count);
    let sealed = tpm.seal(&parent, &lease.digest(), &secret()).unwrap();
    tpm.unseal(&parent, &sealed, &lease).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let refused = tpm.unseal(&parent, &sealed, &lease).unwrap_err();
    assert!(refused.is_policy_refusal(), "{refused}");
}

#[test]
fn data_wrapped_outside_opens_in_the_tpm_it_was_wrapped_for() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let parent = srk(&mut tpm);
    let selection = PcrSelection::sha256(&[0]);
    let policy = Policy::new().pcr(&selection, &tpm.pcr_read(&selection).unwrap()).unwrap();
    let wrapped = software::wrap_sealed(parent.public(), &policy.digest(), &secret()).unwrap();
    let blob = tpm.import(&parent, &wrapped).unwrap();
    assert_eq!(tpm.unseal(&parent, &blob, &policy).unwrap().expose(), secret().expose());
    let Some(other) = Swtpm::start() else { return };
    let mut other = other.open();
    let foreign = srk(&mut other);
    assert!(other.import(&foreign, &wrapped).is_err());
}
