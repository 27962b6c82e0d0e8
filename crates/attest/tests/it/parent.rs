//! The parent of a key that goes from one TPM to another: each thing that may be wrong with it.

use attest::{
    host::EnrolledAk,
    parent::{ParentRejection, check},
};
use model::{
    HostId, MigrationId,
    api::{Bytes, duplication::StorageParent},
};
use tpm::{Public, resident};

use crate::support::{AK, QUOTE, SoftAk, sized};

const CERTIFY: u16 = 0x8017;
/// Restricted, decrypt, fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA.
const STORAGE: u32 = 0x0003_0472;
const ID: MigrationId = MigrationId([7; 16]);

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn certified(ak: &SoftAk, public: &Public, named: &Public, kind: u16) -> StorageParent {
    let mut body = Vec::new();
    sized(&mut body, named.name().as_bytes());
    sized(&mut body, named.name().as_bytes());
    let qualifying = resident::qualifying(&ID, &host("a"), &host("b"));
    let (attest, signature) = ak.attest(kind, qualifying.as_bytes(), &body);
    let public = Bytes(public.as_bytes().to_vec());
    StorageParent { public, attest: Bytes(attest), signature: Bytes(signature) }
}

#[test]
fn a_parent_counts_only_where_the_targets_ak_certified_it_for_this_migration() {
    let (ak, storage, other) = (SoftAk::new(AK), SoftAk::new(STORAGE), SoftAk::new(STORAGE));
    let enrolled = EnrolledAk::admit(ak.public.clone()).unwrap();
    let judge = |parent: &StorageParent, id: MigrationId, from: &str, to: &str| {
        check(&enrolled, parent, &id, (&host(from), &host(to)))
    };
    let good = certified(&ak, &storage.public, &storage.public, CERTIFY);
    assert_eq!(judge(&good, ID, "a", "b"), Ok(storage.public.name()));
    for (id, from, to) in
        [(MigrationId([8; 16]), "a", "b"), (ID, "c", "b"), (ID, "a", "c"), (ID, "b", "a")]
    {
        assert_eq!(judge(&good, id, from, to), Err(ParentRejection::Elsewhere));
    }
    let refused = |parent: &StorageParent| judge(parent, ID, "a", "b").unwrap_err();
    // Another host's AK; a key that was swapped; a key that signs, or may leave its TPM; a quote.
    let stranger = certified(&SoftAk::new(AK), &storage.public, &storage.public, CERTIFY);
    assert_eq!(refused(&stranger), ParentRejection::Unsigned);
    let swapped = certified(&ak, &other.public, &storage.public, CERTIFY);
    assert_eq!(refused(&swapped), ParentRejection::Name);
    for kind in [AK, STORAGE & !0x0002, STORAGE & !0x0010, STORAGE & !0x0001_0000, STORAGE & !0x20]
    {
        let wrong = SoftAk::new(kind).public;
        let parent = certified(&ak, &wrong, &wrong, CERTIFY);
        assert_eq!(refused(&parent), ParentRejection::Kind, "{kind:x}");
    }
    let quote = certified(&ak, &storage.public, &storage.public, QUOTE);
    assert_eq!(refused(&quote), ParentRejection::Unreadable);
    for altered in [
        StorageParent { public: Bytes(vec![1]), ..good.clone() },
        StorageParent { signature: Bytes(vec![1]), ..good },
    ] {
        assert_eq!(refused(&altered), ParentRejection::Unreadable);
    }
}
