//! What is required, optional and replaced.

use attest::{
    envelope::{Sign as _, TrustedKeys},
    eventlog::Builder,
};
use model::HashAlg;

use super::*;

fn log_of(events: &[(u8, &str, u8)]) -> Vec<u8> {
    let mut builder = Builder::new(&[HashAlg::Sha256]);
    for (pcr, name, content) in events {
        let digest = Digest::new(HashAlg::Sha256, &[*content; 32]).unwrap();
        builder.event(*pcr, EventType::IPL, &[digest], name.as_bytes()).unwrap();
    }
    builder.finish()
}

fn digest(content: u8) -> Digest {
    Digest::new(HashAlg::Sha256, &[content; 32]).unwrap()
}

#[test]
fn what_only_some_logs_have_is_optional_and_all_their_digests_are_good() {
    let first = log_of(&[(0, "firmware", 1), (9, "kernel", 2), (9, "splash", 3)]);
    let second = log_of(&[(0, "firmware", 4), (9, "kernel", 2), (11, "unified", 5)]);
    let logs = [EventLog::parse(&first).unwrap(), EventLog::parse(&second).unwrap()];
    let pcrs = usual_pcrs(&logs);
    assert_eq!(pcrs, [0, 1, 2, 3, 4, 5, 6, 7, 9, 11]);
    let values = from_logs("rack", 7, &logs, &pcrs);
    let found: Vec<_> =
        values.events.iter().map(|e| (e.name.as_str(), e.digests.len(), e.optional)).collect();
    assert_eq!(
        found,
        [("firmware", 2, false), ("kernel", 1, false), ("splash", 1, true), ("unified", 1, true)]
    );
}

#[test]
fn a_component_is_named_joined_and_replaced() {
    let log = log_of(&[(0, "firmware", 1)]);
    let log = EventLog::parse(&log).unwrap();
    let mut values = from_logs("rack", 7, &[log], &[0]);
    assert_eq!(endorse_component(&mut values, "host", &[digest(1)], false), Endorsed::Named);
    assert_eq!(values.pcrs, [0, COMPONENTS_PCR]);
    assert_eq!(endorse_component(&mut values, "host", &[digest(2)], false), Endorsed::Joined);
    assert_eq!(values.events.last().unwrap().digests, [digest(1), digest(2)]);
    assert_eq!(endorse_component(&mut values, "host", &[digest(3)], true), Endorsed::Replaced);
    assert_eq!(values.events.last().unwrap().digests, [digest(3)]);
}

#[test]
fn each_endorser_adds_a_signature_and_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = dir.path().join(name);
        make_key(&file, &file.with_extension("pub")).unwrap()
    };
    let (ann, bob) = (key("ann.key"), key("bob.key"));
    let mut values = from_logs("rack", 7, &[], &[]);
    endorse_component(&mut values, "host", &[digest(1)], false);
    let mut document = Document::draft(values);
    let file = dir.path().join("signed.json");
    document.sign(&ann, ann.spki()).unwrap();
    document.write(&file).unwrap();
    let keys = TrustedKeys::new([ann.spki(), bob.spki()]).unwrap();
    let check = |document: &Document, needed| {
        verify(document.envelope.as_ref().unwrap(), &keys, needed)
            .map(|signed| signed.signers().len())
    };
    assert!(check(&document, 2).is_err());
    let mut document = Document::read(&file).unwrap();
    document.sign(&bob, bob.spki()).unwrap();
    assert_eq!(check(&document, 2).unwrap(), 2);
    let ids: Vec<_> =
        document.envelope.iter().flat_map(|e| &e.signatures).map(|s| s.keyid).collect();
    assert_eq!(ids, [ann.key_id(), bob.key_id()]);
    assert!(document.clone().sign(&bob, bob.spki()).is_err());
    assert!(make_key(&dir.path().join("ann.key"), &dir.path().join("ann.pub")).is_err());
}
