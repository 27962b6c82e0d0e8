//! Keys that are kept under an owner's key in the host's TPM, and move with it: between two keepers,
//! each with a TPM of the test's own making. What real TPMs refuse is tested where they are.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    encoding::{AsBigEndian as _, EcPrivateKeyBin},
};
use model::{
    HostId, MigrationId, Secret,
    agent::resident::{Departure, ResidentKey, Travelling},
    api::{Bytes, duplication::StorageParent},
    migration::{Body, Statement},
};
use serve::hpke::{self, HpkePublic};
use trust::keeper::{HostKeyError, HostKeys, Keep, Settings};

use crate::{
    migrate::{announce, answering, incoming, migrate, next, own, owned, place, settle},
    support::{Rig, open_settings, prototype, secret},
};

/// What all TPMs of a test have in common: the keys by number, which stand for what is wrapped.
type Keys = Arc<Mutex<BTreeMap<u8, Vec<u8>>>>;

/// A TPM: wraps by writing its name before the number of a key.
#[derive(Debug)]
struct Tpm {
    name: String,
    keys: Keys,
    agreed: AtomicUsize,
}

impl Tpm {
    fn new(name: &str, keys: &Keys) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), keys: Arc::clone(keys), agreed: 0.into() })
    }

    fn wrapped(&self, number: u8) -> Bytes {
        Bytes([self.name.as_bytes(), &[number]].concat())
    }

    fn open(&self, blob: &Bytes) -> Result<(u8, PrivateKey), HostKeyError> {
        let refused = || HostKeyError::Refused("key-unfit".to_owned());
        let number = blob.0.strip_prefix(self.name.as_bytes()).ok_or_else(refused)?[0];
        let scalar = self.keys.lock().unwrap()[&number].clone();
        Ok((number, PrivateKey::from_private_key(&ECDH_P256, &scalar).unwrap()))
    }

    fn shown(&self, number: u8, key: &PrivateKey) -> ResidentKey {
        let point = key.compute_public_key().unwrap();
        ResidentKey { blob: self.wrapped(number), point: Bytes(point.as_ref().to_vec()) }
    }
}

impl HostKeys for Tpm {
    fn make(&self) -> Result<ResidentKey, HostKeyError> {
        let key = PrivateKey::generate(&ECDH_P256).unwrap();
        let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().unwrap();
        let mut keys = self.keys.lock().unwrap();
        let number = u8::try_from(keys.len()).unwrap();
        keys.insert(number, scalar.as_ref().to_vec());
        Ok(self.shown(number, &key))
    }

    fn agree(&self, blob: &Bytes, point: &Bytes) -> Result<Secret<Vec<u8>>, HostKeyError> {
        self.agreed.fetch_add(1, Ordering::SeqCst);
        let (_, key) = self.open(blob)?;
        let theirs = UnparsedPublicKey::new(&ECDH_P256, &point.0);
        Ok(Secret::new(agree(&key, theirs, (), |z| Ok(z.to_vec())).unwrap()))
    }

    fn parent(&self, _: MigrationId, source: &HostId) -> Result<StorageParent, HostKeyError> {
        let public = Bytes(self.name.as_bytes().to_vec());
        let attest = Bytes(source.as_str().as_bytes().to_vec());
        Ok(StorageParent { public, attest, signature: Bytes::default() })
    }

    fn depart(&self, departure: &Departure) -> Result<Travelling, HostKeyError> {
        let (number, _) = self.open(&departure.blob)?;
        if departure.parent.public.0 != departure.target.as_str().as_bytes() {
            return Err(HostKeyError::Refused("key-parent-foreign".to_owned()));
        }
        let duplicate = [&departure.parent.public.0[..], &[number]].concat();
        let (public, seed) = (Bytes::default(), Bytes::default());
        Ok(Travelling { public, duplicate: Bytes(duplicate), seed, inner: secret(b"inner") })
    }

    fn arrive(&self, came: &Travelling) -> Result<ResidentKey, HostKeyError> {
        let (number, key) = self.open(&came.duplicate)?;
        Ok(self.shown(number, &key))
    }
}

fn rig(tpm: Option<&Arc<Tpm>>) -> Rig {
    let settings =
        Settings { generate_keys: true, escrow: true, keep: Keep::Tpm, ..open_settings() };
    let rig = Rig::new(settings);
    rig.keeper.moves(Arc::default());
    on(rig, tpm)
}

fn on(rig: Rig, tpm: Option<&Arc<Tpm>>) -> Rig {
    if let Some(tpm) = tpm {
        rig.keeper.lives_on(Arc::clone(tpm) as Arc<dyn HostKeys>);
    }
    rig
}

/// Two hosts and their TPMs.
fn two() -> ((Rig, Arc<Tpm>), (Rig, Arc<Tpm>)) {
    let keys = Keys::default();
    let (a, b) = (Tpm::new("a", &keys), Tpm::new("b", &keys));
    ((rig(Some(&a)), a), (rig(Some(&b)), b))
}

/// Registers a key that is made there; the same again gives it again.
fn made(rig: &Rig, phrase: &str) -> Option<Vec<u8>> {
    let done = rig.register_by(phrase, &prototype("made", None), None).ok()?;
    Some(done.private_key?.key.0.expose().clone())
}

fn phrase(rig: &Rig) -> String {
    rig.authorize_as(owned("made", "v1")).unwrap()
}

#[test]
fn what_is_kept_under_a_resident_key_moves_without_being_opened_and_opens_there() {
    let ((a, tpm_a), (b, tpm_b)) = two();
    let phrase = phrase(&a);
    let key = made(&a, &phrase).unwrap();
    assert_eq!(made(&a, &phrase).unwrap(), key);
    let opened = tpm_a.agreed.load(Ordering::SeqCst);
    assert!(opened >= 2, "the TPM was not asked");
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!(answering([&a, &b], "made"), [0, 1]);
    assert_eq!(tpm_a.agreed.load(Ordering::SeqCst), opened, "it was opened to be moved");
    // Once, to see that it is the right one, before the source let go.
    assert_eq!(tpm_b.agreed.load(Ordering::SeqCst), 1);
    assert_eq!(made(&b, &phrase).unwrap(), key);
    assert!(made(&a, &phrase).is_none());
    // And back.
    announce(&a, "v1", ("b", Some(&b)));
    migrate(&b, "v1", "a").unwrap();
    settle(&b, &a, "v1", ("b", "a"));
    assert_eq!(made(&a, &phrase).unwrap(), key);
}

#[test]
fn whichever_keeper_dies_after_whichever_step_the_key_is_at_one_place_in_the_end() {
    for cut in 0..5 {
        for who in 0..3 {
            let ((mut a, tpm_a), (mut b, tpm_b)) = two();
            let phrase = phrase(&a);
            let key = made(&a, &phrase).unwrap();
            announce(&b, "v1", ("a", Some(&a)));
            migrate(&a, "v1", "b").unwrap();
            let mut steps = 0;
            while let Some(said) = next(&a, "v1", "a") {
                let answer = incoming(&b, &said, "b", true).unwrap();
                let lost = steps == cut;
                if lost && who != 1 {
                    a = on(a.restart(), Some(&tpm_a));
                }
                if lost && who != 0 {
                    b = on(b.restart(), Some(&tpm_b));
                }
                if !lost {
                    a.keeper.heard("v1", &answer, true).unwrap();
                }
                steps += 1;
                assert!(steps < 12, "it does not come to an end");
            }
            assert_eq!((place(&a, "v1"), place(&b, "v1")), ("absent", "here"));
            assert_eq!(made(&b, &phrase).unwrap(), key, "cut {cut}, {who}");
        }
    }
}

/// Until the target is ready.
fn readied(a: &Rig, b: &Rig) -> Statement {
    announce(b, "v1", ("a", Some(a)));
    migrate(a, "v1", "b").unwrap();
    let offer = next(a, "v1", "a").unwrap();
    incoming(b, &offer, "b", true).unwrap()
}

fn given_up(a: &Rig, ready: &Statement) -> String {
    a.keeper.heard("v1", ready, true).unwrap();
    let why = a.keeper.outgoing("v1", &own("a")).unwrap_err();
    assert_eq!(place(a, "v1"), "withdrawing", "{why}");
    assert_eq!(answering([a, a], "made"), [1, 1]);
    a.last_refusal()
}

#[test]
fn a_key_does_not_go_where_no_parent_or_a_foreign_one_is_named() {
    let ((a, _), _) = two();
    made(&a, &phrase(&a)).unwrap();
    let without = rig(None);
    assert_eq!(given_up(&a, &readied(&a, &without)), "key-parent-missing");
    let ((a, _), (b, _)) = two();
    made(&a, &phrase(&a)).unwrap();
    let mut ready = readied(&a, &b);
    let Body::Ready { parent: Some(parent), .. } = &mut ready.body else { panic!("no parent") };
    parent.public = Bytes(b"thief".to_vec());
    assert_eq!(given_up(&a, &ready), "key-parent-foreign");
}

#[test]
fn a_key_that_is_for_another_tpm_or_does_not_open_what_came_is_not_held() {
    let ((a, _), (b, _)) = two();
    made(&a, &phrase(&a)).unwrap();
    let ready = readied(&a, &b);
    a.keeper.heard("v1", &ready, true).unwrap();
    let parcel = next(&a, "v1", "a").unwrap();
    // A lying source has its own key wrapped for that TPM: it opens nothing.
    let Body::Ready { key, .. } = &ready.body else { panic!("not ready") };
    let lie = |duplicate: &[u8]| {
        let travelling = Travelling {
            public: Bytes::default(),
            duplicate: Bytes(duplicate.to_vec()),
            seed: Bytes::default(),
            inner: secret(b"inner"),
        };
        let content = serde_json::json!([{ "travelling": travelling }]);
        let text = serde_json::to_vec(&content).unwrap();
        let verdict = parcel.verdict;
        let info = model::migration::info(&parcel, &verdict, &ready.verdict);
        let sealed = hpke::seal(&HpkePublic(key.0.clone()), &info, b"", &text).unwrap();
        let body = Body::Parcel { enc: Bytes(sealed.enc), ciphertext: Bytes(sealed.ciphertext) };
        Statement { body, ..parcel.clone() }
    };
    assert_eq!(incoming(&b, &lie(b"a\0"), "b", true).unwrap_err(), "parcel-unfit");
    assert_eq!(place(&b, "v1"), "ready");
    assert!(incoming(&b, &parcel, "b", true).is_ok());
}

#[test]
fn while_the_tpm_cannot_be_asked_nothing_is_made_and_nothing_given_up() {
    let ((a, tpm), (b, _)) = two();
    let away = rig(None);
    assert!(made(&away, &phrase(&away)).is_none());
    assert_eq!(away.last_refusal(), "key-tpm-away");
    let phrase = phrase(&a);
    made(&a, &phrase).unwrap();
    let ready = readied(&a, &b);
    a.keeper.heard("v1", &ready, true).unwrap();
    let a = a.restart();
    assert!(a.keeper.outgoing("v1", &own("a")).is_err());
    assert_eq!(place(&a, "v1"), "sending");
    let a = on(a, Some(&tpm));
    settle(&a, &b, "v1", ("a", "b"));
    assert!(made(&b, &phrase).is_some());
}
