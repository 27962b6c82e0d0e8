//! Keys and certificates before the first boot.

use model::child::vtpm::{Fault, Request};
use tpm::{Auth, AuthValue, Hierarchy, PcrSelection, Public, Purpose, QualifyingData, handle};

use crate::support::{Agent, Process, keys, manufactured};

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
    assert_eq!(agent.fault(&Request::Manufacture { rsa: false }), Fault::Running);
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
    agent.quote(1, &[model::HashAlg::Sha256]);
    // Only firmware can remove it; then there are no quotes, by name.
    guest.evict(Hierarchy::Platform, Auth::none(), &ak).unwrap();
    let fault = agent.fault(&Agent::quote_request(2, &[model::HashAlg::Sha256]));
    assert_eq!(fault, Fault::NotManufactured);
}
