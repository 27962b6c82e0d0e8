//! Keys and certificates before the first boot.

use model::{
    Digest, HashAlg,
    child::vtpm::{Fault, Request},
};
use tpm::{Auth, AuthValue, Hierarchy, PcrSelection, Public, Purpose, QualifyingData, handle};

use crate::{
    replay::assert_agrees,
    support::{Agent, Process, command, keys, manufacture, manufactured},
};

#[test]
fn keys_are_made_once_and_survive_a_restart() {
    let Some((home, process, identity)) = manufactured() else { return };
    let mut agent = process.agent();
    assert!(agent.status().manufactured);
    assert_eq!(agent.manufacture(false), identity);
    assert!(Public::parse(&identity.ak).unwrap().is_attestation_key());
    assert!(!Public::parse(&identity.ek_p256).unwrap().is_attestation_key());
    let with_rsa = agent.manufacture(true);
    assert!(Public::parse(&with_rsa.ek_rsa).unwrap().spki_der().is_ok());
    drop(agent);
    drop(process);
    let process = Process::start(home.path(), &keys(1), 100);
    assert_eq!(process.agent().manufacture(true), with_rsa);
}

#[test]
fn certificates_are_written_locked_and_readable_by_the_guest() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let install = |first: u8| Request::InstallCertificates {
        ek_p256: [vec![first], vec![0x30; 1300]].concat(),
        ek_rsa: vec![0x31; 700],
    };
    let done = agent.ask(&install(1));
    assert_eq!(done, model::child::vtpm::Reply::Done {});
    assert_eq!(agent.ask(&install(1)), done);
    assert_eq!(agent.fault(&install(2)), Fault::BadRequest);
    let mut qemu = process.qemu();
    assert_eq!(agent.fault(&install(1)), Fault::Running);
    assert_eq!(agent.fault(&manufacture(false, &HashAlg::ALL)), Fault::Running);
    let mut guest = qemu.boot();
    let read = guest.nv_read(None, &mut Auth::none(), handle::EK_CERT_P256).unwrap();
    assert_eq!(read.len(), 1301);
    let read = guest.nv_read(Some(Hierarchy::Owner), &mut Auth::none(), handle::EK_CERT_RSA);
    assert_eq!(*read.unwrap(), [0x31; 700]);
    let index = handle::EK_CERT_P256;
    let by = Some(Hierarchy::Platform);
    assert!(guest.nv_write(by, &mut Auth::none(), index, &[1]).is_err());
}

#[test]
fn a_guest_cannot_use_derive_or_remove_the_hosts_ak() {
    let Some((_home, process, identity)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    let ak = guest.persistent(handle::VTPM_AK).unwrap().unwrap();
    assert_eq!(ak.public().as_bytes(), identity.ak);
    let empty = AuthValue::empty();
    let purpose = QualifyingData::bind(Purpose::GuestAttest, &model::Nonce([0; 32]), &[]);
    let refused = guest.quote(&ak, &empty, &purpose, &PcrSelection::sha256(&[0])).unwrap_err();
    assert!(refused.code().unwrap().is_auth_failure(), "{refused}");
    // Firmware still holds the platform hierarchy: it cannot derive the key again ...
    let kind = tpm::template::ak_p256();
    let derived = guest.create_primary(Hierarchy::Platform, Auth::none(), &kind, &empty).unwrap();
    assert_ne!(derived.public().as_bytes(), identity.ak);
    // ... a change of owner does not reach it, and neither does the owner.
    guest.clear(Hierarchy::Platform, Auth::none()).unwrap();
    assert!(guest.evict(Hierarchy::Owner, Auth::none(), &ak).is_err());
    agent.quote(1, &[HashAlg::Sha256]);
    // Only firmware can remove it; then there are no quotes, by name.
    guest.evict(Hierarchy::Platform, Auth::none(), &ak).unwrap();
    let fault = agent.fault(&Agent::quote_request(2, &[HashAlg::Sha256]));
    assert_eq!(fault, Fault::NotManufactured);
}

#[test]
fn a_vtpm_has_the_banks_that_were_asked_for_and_speaks_of_no_others() {
    if !crate::programs::have("swtpm") {
        return;
    }
    let (sha256, sha384) = (HashAlg::Sha256, HashAlg::Sha384);
    for banks in [vec![sha256], vec![sha256, sha384], HashAlg::ALL.to_vec()] {
        let home = tempfile::tempdir().unwrap();
        let process = Process::start(home.path(), &keys(1), 100);
        let mut agent = process.agent();
        let identity = agent.ask(&manufacture(false, &banks));
        // Once more, as after an agent that died in between.
        assert_eq!(agent.ask(&manufacture(false, &banks)), identity);
        let mut qemu = process.qemu();
        assert_eq!(qemu.boot().pcr_banks().unwrap(), banks);
        let capability = [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 64];
        let told = qemu.raw_ok(&command(0x17a, &[], 0, &capability));
        assert_eq!(usize::from(told[18]), banks.len());
        // Firmware may extend banks that are not there; the TPM passes over them.
        let digests = HashAlg::ALL.map(|alg| Digest::new(alg, &vec![1; alg.size()]).unwrap());
        qemu.tpm().pcr_extend(4, &digests).unwrap();
        let quoted = agent.quote(1, &banks);
        assert_eq!(quoted.banks, banks);
        assert_agrees(&quoted, &quoted.observed.entries);
        if banks.len() < HashAlg::ALL.len() {
            let other = Agent::quote_request(2, &HashAlg::ALL);
            assert_eq!(agent.fault(&other), Fault::BadRequest);
        }
    }
}
