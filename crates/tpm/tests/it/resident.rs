//! Keys that live in a TPM and go to another one: between software TPMs, and against tpm2-tools.

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use tpm::{
    Auth, AuthValue, Hierarchy, KeyBlob, Object, Policy, Public, Signature, Tpm, TpmError,
    VerifyingKey, lease::Approver, resident, template,
};

use crate::{programs::have, support::Swtpm};

const REFERENCE: &[u8] = b"vouchsafe:key-duplication:v1";

/// The authority's key.
struct Authority {
    key: EcdsaKeyPair,
    approver: Approver,
    public: Public,
}

impl Authority {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (point[1..33].try_into().unwrap(), point[33..].try_into().unwrap());
        let verifying = VerifyingKey::P256 { x, y };
        let approver = Approver::from_spki(&verifying.spki_der()).unwrap();
        Self { key, approver, public: Public::signing_key(&verifying).unwrap() }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn approve(&self, key: &KeyBlob, parent: &Object) -> Vec<u8> {
        self.sign(&resident::approval(&key.public.name(), parent.name()))
    }
}

fn srk(tpm: &mut Tpm) -> Object {
    let (kind, empty) = (template::srk_p256(), AuthValue::empty());
    tpm.create_primary(Hierarchy::Owner, Auth::none(), &kind, &empty).unwrap()
}

/// A pair outside any TPM, and what it agrees on with a resident key.
fn outside(key: &KeyBlob) -> (Vec<u8>, Vec<u8>) {
    let own = PrivateKey::generate(&ECDH_P256).unwrap();
    let point = own.compute_public_key().unwrap().as_ref().to_vec();
    let theirs = resident::point(&key.public).unwrap();
    let theirs = UnparsedPublicKey::new(&ECDH_P256, theirs);
    (point, agree(&own, theirs, (), |z| Ok(z.to_vec())).unwrap())
}

#[test]
fn a_key_goes_from_one_tpm_into_another_and_agrees_there_as_it_did_here() {
    let (Some(one), Some(two)) = (Swtpm::start(), Swtpm::start()) else { return };
    let authority = Authority::new();
    let (mut a, mut b) = (one.open(), two.open());
    let (root, target) = (srk(&mut a), srk(&mut b));
    let key = resident::make(&mut a, &root, &authority.approver).unwrap();
    assert!(resident::is_resident(&key.public, &authority.approver));
    assert!(resident::is_parent(target.public()) && !resident::is_parent(&key.public));
    let (point, agreed) = outside(&key);
    assert_eq!(*resident::agree(&mut a, &root, &key, &point).unwrap().expose(), agreed);
    let word = authority.approve(&key, &target);
    let word = (&authority.approver, word.as_slice());
    let travelling = resident::leave(&mut a, (&root, &key), target.public(), word).unwrap();
    let there = resident::arrive(&mut b, &target, &authority.approver, &travelling).unwrap();
    assert_eq!(there.public, key.public);
    assert_eq!(*resident::agree(&mut b, &target, &there, &point).unwrap().expose(), agreed);
    // And on from there.
    let word = authority.approve(&there, &root);
    let word = (&authority.approver, word.as_slice());
    let back = resident::leave(&mut b, (&target, &there), root.public(), word).unwrap();
    assert!(resident::arrive(&mut a, &root, &authority.approver, &back).is_ok());
    // Neither TPM has anything left over.
    assert_eq!(a.transient_handles().unwrap(), [root.handle()]);
    assert_eq!(b.transient_handles().unwrap(), [target.handle()]);
    // What travels opens in no third one, and not with another inner key.
    let Some(three) = Swtpm::start() else { return };
    let mut c = three.open();
    let foreign = srk(&mut c);
    assert!(resident::arrive(&mut c, &foreign, &authority.approver, &travelling).is_err());
    let altered = tpm::Duplicate { inner: vec![1; 16].into(), ..travelling };
    assert!(resident::arrive(&mut b, &target, &authority.approver, &altered).is_err());
}

#[test]
fn the_tpm_itself_refuses_a_parent_that_the_authority_did_not_name() {
    let (Some(one), Some(two)) = (Swtpm::start(), Swtpm::start()) else { return };
    let authority = Authority::new();
    let (mut a, mut thief) = (one.open(), two.open());
    let (root, foreign) = (srk(&mut a), srk(&mut thief));
    let key = resident::make(&mut a, &root, &authority.approver).unwrap();
    let other = resident::make(&mut a, &root, &authority.approver).unwrap();
    let leave = |tpm: &mut Tpm, signature: &[u8]| {
        let word = (&authority.approver, signature);
        resident::leave(tpm, (&root, &key), foreign.public(), word).unwrap_err()
    };
    // Signed for another parent, for another key, by somebody else.
    for signature in [
        authority.approve(&key, &root),
        authority.approve(&other, &foreign),
        Authority::new().approve(&key, &foreign),
    ] {
        let refused = leave(&mut a, &signature);
        assert!(refused.is_policy_refusal(), "{refused}");
    }
    // A session that satisfies the policy for one parent does not serve for another.
    let signature = Signature::from_ecdsa_der(&authority.approve(&key, &root)).unwrap();
    let policy = Policy::new().duplication(&key.public.name(), root.name()).authorize(
        &authority.public,
        REFERENCE,
        Some(signature),
    );
    assert_eq!(policy.digest(), key.public.policy());
    let refused: Result<(), TpmError> = a.scoped(|tpm| {
        let mut session = tpm.start_policy_session(Some(&root))?;
        policy.satisfy(tpm, &mut session)?;
        let key = tpm.load(&root, Auth::none(), &key)?;
        let parent = tpm.load_external(foreign.public())?;
        tpm.duplicate(&key, &mut session, &parent).map(drop)
    });
    let refused = refused.unwrap_err();
    assert!(refused.is_policy_refusal(), "{refused}");
    // Who knows the (empty) authValue may use the key, not duplicate it.
    let refused: Result<(), TpmError> = a.scoped(|tpm| {
        let mut session = tpm.start_hmac_session(&root)?;
        let key = tpm.load(&root, Auth::none(), &key)?;
        tpm.duplicate(&key, &mut session, &root).map(drop)
    });
    assert!(refused.unwrap_err().code().is_some());
}

#[test]
fn a_key_of_another_policy_is_not_taken() {
    let (Some(one), Some(two)) = (Swtpm::start(), Swtpm::start()) else { return };
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (mut a, mut b) = (one.open(), two.open());
    let (root, target) = (srk(&mut a), srk(&mut b));
    let key = resident::make(&mut a, &root, &stranger.approver).unwrap();
    assert!(!resident::is_resident(&key.public, &authority.approver));
    let word = stranger.approve(&key, &target);
    let word = (&stranger.approver, word.as_slice());
    let travelling = resident::leave(&mut a, (&root, &key), target.public(), word).unwrap();
    let refused = resident::arrive(&mut b, &target, &authority.approver, &travelling).unwrap_err();
    assert!(matches!(refused, TpmError::Policy(_)), "{refused}");
}

#[test]
fn tpm2_tools_compute_the_same_policy_and_take_the_key_that_travels() {
    if !have("tpm2_policyduplicationselect") || !have("socat") {
        return;
    }
    let (Some(one), Some(two)) = (Swtpm::start(), Swtpm::start()) else { return };
    two.tool_ok("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-c", "p.ctx"]);
    two.tool_ok("tpm2_evictcontrol", &["-c", "p.ctx", "0x81000001"]);
    two.tool_ok("tpm2_flushcontext", &["-t"]);
    two.tool_ok("tpm2_readpublic", &["-c", "0x81000001", "-o", "p.pub", "-n", "p.name"]);
    let parent = Public::parse_sized(&two.file("p.pub")).unwrap();
    assert!(resident::is_parent(&parent));
    let authority = Authority::new();
    let mut a = one.open();
    let root = srk(&mut a);
    let key = resident::make(&mut a, &root, &authority.approver).unwrap();
    let name = key.public.name();
    let word = authority.sign(&resident::approval(&name, &parent.name()));
    let word = (&authority.approver, word.as_slice());
    let travelling = resident::leave(&mut a, (&root, &key), &parent, word).unwrap();
    let sized = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    };
    two.write("k.name", name.as_bytes());
    two.write("k.pub", &key.public.to_sized());
    two.write("k.dup", &sized(&travelling.blob.duplicate));
    two.write("k.seed", &sized(&travelling.blob.encrypted_seed));
    two.write("k.inner", travelling.inner.expose());
    two.tool_ok("tpm2_startauthsession", &["-S", "s.ctx"]);
    let names = ["-S", "s.ctx", "-n", "k.name", "-N", "p.name", "-L", "k.policy"];
    two.tool_ok("tpm2_policyduplicationselect", &[&names[..], &["--include-object"]].concat());
    two.tool_ok("tpm2_flushcontext", &["s.ctx"]);
    let ours = Policy::new().duplication(&name, &parent.name()).digest();
    assert_eq!(two.file("k.policy"), ours);
    let input = ["-C", "0x81000001", "-u", "k.pub", "-i", "k.dup", "-s", "k.seed"];
    let output = ["-k", "k.inner", "-r", "k.priv"];
    two.tool_ok("tpm2_import", &[&input[..], &output].concat());
    let load = ["-C", "0x81000001", "-u", "k.pub", "-r", "k.priv", "-c", "k.ctx"];
    two.tool_ok("tpm2_load", &load);
}
