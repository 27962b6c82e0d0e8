//! Keys, quotes, credentials, NV and contexts on a real software TPM.

use model::{Digest, HashAlg, Nonce, Secret};
use tpm::{
    Attest, Attested, Auth, AuthValue, Hierarchy, NvAttributes, NvPublic, PcrSelection, Policy,
    Purpose, QualifyingData, Signature, Tpm, TpmError, handle, software, template,
};

use crate::support::Swtpm;

fn ak(tpm: &mut Tpm) -> tpm::Object {
    let auth = AuthValue::empty();
    tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ak_p256(), &auth).unwrap()
}

fn ek(tpm: &mut Tpm, template: &template::Template) -> tpm::Object {
    let auth = AuthValue::empty();
    tpm.create_primary(Hierarchy::Endorsement, Auth::none(), template, &auth).unwrap()
}

fn purpose(byte: u8) -> QualifyingData {
    QualifyingData::bind(Purpose::HostAttest, &Nonce([byte; 32]), &[b"session", b"hpke"])
}

#[test]
fn a_quote_verifies_and_covers_the_values_that_come_with_it() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    tpm.startup().unwrap();
    let ak = ak(&mut tpm);
    tpm.pcr_extend(16, &[Digest::sha256([7; 32])]).unwrap();
    let selection = PcrSelection::all_sha256().with(HashAlg::Sha384, &[0, 16]);
    let quote = tpm.quote(&ak, &AuthValue::empty(), &purpose(1), &selection).unwrap();
    let attest = Attest::parse(&quote.attest).unwrap();
    assert!(attest.is_for(&purpose(1)));
    assert!(!attest.is_for(&purpose(2)));
    let signature = Signature::parse(&quote.signature).unwrap();
    assert_eq!(signature.to_bytes(), quote.signature);
    let spki = ak.public().spki_der().unwrap();
    signature.verify_spki(&spki, &quote.attest).unwrap();
    let mut altered = quote.attest.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(signature.verify_spki(&spki, &altered).is_err());
    let Attested::Quote { selection: quoted, pcr_digest } = attest.attested else { panic!() };
    assert_eq!(quoted, selection);
    assert_eq!(quote.pcrs.digest(&selection).unwrap(), pcr_digest.as_bytes());
    assert_eq!(quote.pcrs.len(), 26);
    assert_ne!(quote.pcrs.get(HashAlg::Sha256, 16), Some(&Digest::zero(HashAlg::Sha256)));
    tpm.pcr_reset(16).unwrap();
    let after = tpm.pcr_read(&PcrSelection::sha256(&[16])).unwrap();
    assert_eq!(after.get(HashAlg::Sha256, 16), Some(&Digest::zero(HashAlg::Sha256)));
}

#[test]
fn an_ak_certifies_another_key_of_its_tpm() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let ak = ak(&mut tpm);
    let empty = AuthValue::empty();
    let srk = template::srk_p256();
    let srk = tpm.create_primary(Hierarchy::Owner, Auth::none(), &srk, &empty).unwrap();
    let proof = tpm.certify(&srk, &empty, &ak, &empty, &purpose(3)).unwrap();
    let attest = Attest::parse(&proof.attest).unwrap();
    let Attested::Certify { name, .. } = attest.attested else { panic!() };
    assert_eq!(&name, srk.name());
    let signature = Signature::parse(&proof.signature).unwrap();
    signature.verify(&ak.public().verifying_key().unwrap(), &proof.attest).unwrap();
}

#[test]
fn a_credential_opens_only_with_the_ek_and_the_ak_it_was_made_for() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let empty = AuthValue::empty();
    for kind in [template::ek_p256(), template::ek_rsa2048()] {
        tpm.scoped(|tpm| {
            let ek = ek(tpm, &kind);
            let ak = ak(tpm);
            let secret = Secret::new(b"thirty-two bytes of enrol secret".to_vec());
            let made = software::make_credential(ek.public(), ak.name(), &secret).unwrap();
            let made = tpm::Credential::parse(&made.to_bytes().unwrap()).unwrap();
            let got = tpm.activate_credential(&ak, &empty, &ek, &empty, &made)?;
            assert_eq!(got.expose(), secret.expose());
            let other = software::make_credential(ek.public(), ek.name(), &secret).unwrap();
            let refused = tpm.activate_credential(&ak, &empty, &ek, &empty, &other);
            assert!(matches!(refused, Err(TpmError::Command { .. })), "{refused:?}");
            Ok::<_, TpmError>(())
        })
        .unwrap();
    }
    assert!(tpm.transient_handles().unwrap().is_empty());
}

#[test]
fn keys_persist_and_a_key_with_an_auth_value_needs_it() {
    let Some(swtpm) = Swtpm::start() else { return };
    let secret = AuthValue::new(&[5; 32]).unwrap();
    let mut tpm = swtpm.open();
    let made = tpm
        .scoped(|tpm| {
            let kind = template::ak_p256();
            let key = tpm.create_primary(Hierarchy::Platform, Auth::none(), &kind, &secret)?;
            tpm.persist(Hierarchy::Platform, Auth::none(), &key, handle::VTPM_AK)
        })
        .unwrap();
    drop(tpm);
    let mut tpm = swtpm.open();
    assert!(tpm.persistent(handle::EK).unwrap().is_none());
    let ak = tpm.persistent(handle::VTPM_AK).unwrap().unwrap();
    assert_eq!(ak.public(), made.public());
    assert_eq!(tpm.persistent_handles().unwrap(), [handle::VTPM_AK]);
    let selection = PcrSelection::sha256(&[0]);
    let refused = tpm.quote(&ak, &AuthValue::empty(), &purpose(1), &selection).unwrap_err();
    assert!(refused.code().unwrap().is_auth_failure(), "{refused}");
    tpm.quote(&ak, &secret, &purpose(1), &selection).unwrap();
    tpm.clear(Hierarchy::Platform, Auth::none()).unwrap();
    tpm.quote(&ak, &secret, &purpose(1), &selection).unwrap();
    tpm.evict(Hierarchy::Platform, Auth::none(), &ak).unwrap();
    assert!(tpm.persistent(handle::VTPM_AK).unwrap().is_none());
}

#[test]
fn sessions_prove_auth_values_and_encrypt_both_ways() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let empty = AuthValue::empty();
    for kind in [template::srk_p256(), template::ek_rsa2048()] {
        tpm.scoped(|tpm| {
            let salt = tpm.create_primary(Hierarchy::Owner, Auth::none(), &kind, &empty)?;
            let mut session = tpm.start_hmac_session(&salt)?;
            assert!(session.is_salted());
            assert_eq!(tpm.secret_random(100, &mut session)?.expose().len(), 100);
            let owner = AuthValue::new(b"owner\0").unwrap();
            tpm.change_hierarchy_auth(Hierarchy::Owner, &mut session, &empty, &owner)?;
            let index = NvPublic {
                index: 0x0180_0001,
                attributes: NvAttributes(0x0204_0004),
                policy: Vec::new(),
                size: 700,
            };
            let index_auth = AuthValue::new(b"index").unwrap();
            let auth = Auth::Session(&mut session, &owner);
            tpm.nv_define(Hierarchy::Owner, auth, &index, &index_auth)?;
            let data: Vec<u8> = (0..700_u32).map(|n| n.to_be_bytes()[3]).collect();
            let mut auth = Auth::Session(&mut session, &index_auth);
            tpm.nv_write(None, &mut auth, index.index, &data)?;
            assert_eq!(*tpm.nv_read(None, &mut auth, index.index)?, data);
            let wrong = tpm.nv_read(None, &mut Auth::none(), index.index).unwrap_err();
            assert!(wrong.code().unwrap().is_auth_failure(), "{wrong}");
            let auth = Auth::Session(&mut session, &owner);
            tpm.nv_undefine(Hierarchy::Owner, auth, index.index)?;
            tpm.change_hierarchy_auth(Hierarchy::Owner, &mut session, &owner, &empty)
        })
        .unwrap();
    }
}

#[test]
fn a_counter_only_goes_up_and_policy_nv_follows_it() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let empty = AuthValue::empty();
    let counter = NvPublic {
        index: 0x0180_0002,
        attributes: NvAttributes::OWNER_COUNTER,
        policy: Vec::new(),
        size: 8,
    };
    assert!(tpm.nv_public(counter.index).unwrap().is_none());
    tpm.nv_define(Hierarchy::Owner, Auth::none(), &counter, &empty).unwrap();
    let again = tpm.nv_define(Hierarchy::Owner, Auth::none(), &counter, &empty).unwrap_err();
    assert!(again.code().unwrap().is_nv_defined());
    tpm.nv_increment(None, Auth::none(), counter.index).unwrap();
    let first = tpm.nv_read_counter(None, &mut Auth::none(), counter.index).unwrap();
    tpm.nv_increment(Some(Hierarchy::Owner), Auth::none(), counter.index).unwrap();
    let second = tpm.nv_read_counter(None, &mut Auth::none(), counter.index).unwrap();
    assert_eq!(second, first + 1);
    let policy = |value: u64| {
        let comparison = tpm::Comparison::AtMost;
        Policy::new().nv(&counter, &empty, comparison, &value.to_be_bytes(), 0)
    };
    let mut session = tpm.start_policy_session(None).unwrap();
    policy(second).satisfy(&mut tpm, &mut session).unwrap();
    let mut session = tpm.start_policy_session(None).unwrap();
    let refused = policy(first).satisfy(&mut tpm, &mut session).unwrap_err();
    assert!(refused.is_policy_refusal(), "{refused}");
}

#[test]
fn a_locked_certificate_index_cannot_be_written_again() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    let index = NvPublic {
        index: handle::EK_CERT_P256,
        attributes: NvAttributes::EK_CERTIFICATE,
        policy: Vec::new(),
        size: 1300,
    };
    let by = Some(Hierarchy::Platform);
    tpm.nv_define(Hierarchy::Platform, Auth::none(), &index, &AuthValue::empty()).unwrap();
    tpm.nv_write(by, &mut Auth::none(), index.index, &[0x30; 1300]).unwrap();
    tpm.nv_write_lock(by, Auth::none(), index.index).unwrap();
    let refused = tpm.nv_write(by, &mut Auth::none(), index.index, &[1; 8]).unwrap_err();
    assert_eq!(refused.code().unwrap().0, 0x148, "{refused}");
    assert_eq!(tpm.nv_read(None, &mut Auth::none(), index.index).unwrap().len(), 1300);
}

#[test]
fn contexts_leave_and_come_back_and_full_slots_make_room() {
    let Some(swtpm) = Swtpm::start() else { return };
    let empty = AuthValue::empty();
    let mut tpm = swtpm.open();
    let key = ak(&mut tpm);
    let ak = tpm.persist(Hierarchy::Owner, Auth::none(), &key, handle::HOST_AK).unwrap();
    let saved = tpm.save_context(&key).unwrap();
    tpm.flush(&key).unwrap();
    let back = tpm.load_context(&saved, key.public().clone()).unwrap();
    assert_eq!(back.name(), key.name());
    tpm.flush(&back).unwrap();
    // Somebody else fills all slots, with different keys in each.
    let mut names = Vec::new();
    for kind in [template::ek_p256(), template::srk_p256(), template::ak_p256()] {
        let held = tpm.create_primary(Hierarchy::Null, Auth::none(), &kind, &empty).unwrap();
        names.push((held.handle(), held.name().clone()));
    }
    drop(tpm);
    let mut tpm = swtpm.open();
    for round in 0..3 {
        tpm.scoped(|tpm| {
            let quote = tpm.quote(&ak, &empty, &purpose(round), &PcrSelection::all_sha256())?;
            assert!(Attest::parse(&quote.attest).unwrap().is_for(&purpose(round)));
            // Two objects of our own at once displace two of theirs.
            let srk = template::srk_p256();
            let srk = tpm.create_primary(Hierarchy::Owner, Auth::none(), &srk, &empty)?;
            let sealed = tpm.seal(&srk, &Policy::new().digest(), &vec![1, 2, 3].into())?;
            assert_eq!(tpm.unseal(&srk, &sealed, &Policy::new())?.expose(), &[1, 2, 3]);
            Ok::<_, TpmError>(())
        })
        .unwrap();
        assert_eq!(
            tpm.transient_handles().unwrap(),
            names.iter().map(|(handle, _)| *handle).collect::<Vec<_>>()
        );
        for (handle, name) in &names {
            assert_eq!(tpm.persistent(*handle).unwrap().unwrap().name(), name);
        }
    }
}

#[test]
fn the_tpm_tells_what_it_is() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut tpm = swtpm.open();
    assert_eq!(tpm.manufacturer().unwrap(), "IBM");
    assert_eq!(tpm.pcr_banks().unwrap(), HashAlg::ALL);
    let before = tpm.read_clock().unwrap();
    assert!(tpm.read_clock().unwrap().clock.clock >= before.clock.clock);
    assert_eq!(tpm.random(40).unwrap().len(), 40);
}
