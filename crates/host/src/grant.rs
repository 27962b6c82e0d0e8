//! Grants: signed by the authority, sealed to this session, used once.
//!
//! Order of the checks: signature, host, VM, purpose, the request it answers, epoch, KMI, expiry,
//! incarnation, use;
//! then the id is written down durably, and only then is the grant opened. So a grant whose keys
//! were ever in memory cannot be opened again, not even after a crash.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use attest::envelope::{Envelope, Kind, TrustedKeys};
use model::{
    Epoch, GrantId, HostId, Incarnation, Kmi, Secret, VmId,
    api::grant::{Grant, GrantInfo, GrantPurpose},
};
use serve::{
    fsfile::{self, FileError},
    hpke::{self, HpkePrivate},
};
use thiserror::Error;

/// Why a grant is not used.
#[derive(Debug, Error)]
pub(crate) enum GrantRejection {
    /// It was made for an earlier or later epoch.
    #[error("the grant is for epoch {}, the VM is in {}", .granted.0, .expected.0)]
    EpochMoved {
        /// Of the grant.
        granted: Epoch,
        /// Of the VM.
        expected: Epoch,
    },
    /// It was made before the authority's store was last restored.
    #[error("the grant is of incarnation {}, this host has seen {}", .granted.0, .seen.0)]
    IncarnationOld {
        /// Of the grant.
        granted: Incarnation,
        /// The newest that a grant had.
        seen: Incarnation,
    },
    /// Its keys are found by another KMI than the VM's here.
    #[error("the grant's key-management information is not the VM's on this host")]
    OtherKmi,
    /// It has expired.
    #[error("the grant expired at {expires_at}, it is {now}")]
    Expired {
        /// When.
        expires_at: u64,
        /// Now.
        now: u64,
    },
    /// It answers another request.
    #[error("the grant answers another request")]
    OtherRequest,
    /// It is for another host.
    #[error("the grant is for host {0}")]
    OtherHost(HostId),
    /// It is for another VM or purpose.
    #[error("the grant is for other keys than were asked for")]
    OtherKeys,
    /// It cannot be opened with the key of this session.
    #[error("the grant is not sealed to this session, or was altered")]
    Sealed,
    /// It is not signed by the authority that this host enrolled with.
    #[error("the grant is not signed by this host's authority")]
    Signature,
    /// It was used before.
    #[error("the grant was used before")]
    Used,
    /// Its keys do not have the length that they must have.
    #[error("the grant's keys are malformed")]
    Malformed,
    /// The list of used grants cannot be kept.
    #[error("the list of used grants cannot be kept")]
    Ledger(#[source] FileError),
}

impl GrantRejection {
    /// The refusal's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::EpochMoved { .. } => "grant-epoch-moved",
            Self::Expired { .. } => "grant-expired",
            Self::IncarnationOld { .. } => "grant-incarnation-old",
            Self::OtherKmi => "grant-other-kmi",
            Self::OtherRequest | Self::Used => "grant-used",
            Self::OtherHost(_) => "grant-other-host",
            Self::OtherKeys => "grant-other-vm",
            Self::Sealed => "grant-not-sealed-to-session",
            Self::Signature => "grant-signature-invalid",
            Self::Malformed => "grant-malformed",
            Self::Ledger(_) => "grant-ledger",
        }
    }
}

/// What this host expects of a grant.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// The host.
    pub(crate) host: &'a HostId,
    /// The VM.
    pub(crate) vm: &'a VmId,
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// What finds the VM's key on this host.
    pub(crate) kmi: &'a Kmi,
    /// The purpose.
    pub(crate) purpose: GrantPurpose,
    /// The request that it answers.
    pub(crate) request: GrantId,
    /// Now, Unix milliseconds.
    pub(crate) now: u64,
}

/// An opened grant.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What it was bound to.
    pub(crate) info: GrantInfo,
    /// The keys.
    pub(crate) keys: Secret<Vec<u8>>,
}

/// Checks and opens a grant; its id is in `ledger` afterwards.
///
/// # Errors
/// [`GrantRejection`].
pub(crate) fn open(
    answer: &serde_json::Value,
    signer: &[u8],
    session: &HpkePrivate,
    expected: &Expected<'_>,
    ledger: &Ledger,
) -> Result<Opened, GrantRejection> {
    let signed = TrustedKeys::new([signer])
        .ok()
        .zip(Envelope::from_value(answer).ok())
        .and_then(|(keys, envelope)| envelope.verify::<Grant>(&keys, Kind::Grant, 1).ok())
        .ok_or(GrantRejection::Signature)?;
    let grant: Grant = signed.into_inner();
    check(&grant.info, expected)?;
    ledger.spend(grant.info.id, grant.info.incarnation)?;
    let info = serde_json::to_vec(&grant.info).map_err(|_| GrantRejection::Sealed)?;
    let sealed = hpke::Sealed { enc: grant.enc.0, ciphertext: grant.sealed.0 };
    let keys = hpke::open(session, &sealed, &info, word(expected.purpose).as_bytes())
        .map_err(|_| GrantRejection::Sealed)?;
    let length = match expected.purpose {
        GrantPurpose::Boot => 128,
        GrantPurpose::Data => 32,
    };
    if keys.expose().len() != length {
        return Err(GrantRejection::Malformed);
    }
    Ok(Opened { info: grant.info, keys })
}

fn check(info: &GrantInfo, expected: &Expected<'_>) -> Result<(), GrantRejection> {
    if info.host != *expected.host {
        return Err(GrantRejection::OtherHost(info.host.clone()));
    }
    if info.vm != *expected.vm || info.purpose != expected.purpose {
        return Err(GrantRejection::OtherKeys);
    }
    if info.id != expected.request {
        return Err(GrantRejection::OtherRequest);
    }
    if info.epoch != expected.epoch {
        return Err(GrantRejection::EpochMoved { granted: info.epoch, expected: expected.epoch });
    }
    if info.kmi != *expected.kmi {
        return Err(GrantRejection::OtherKmi);
    }
    if info.expires_at <= expected.now {
        return Err(GrantRejection::Expired { expires_at: info.expires_at, now: expected.now });
    }
    Ok(())
}

/// The word of a purpose, HPKE's associated data.
pub(crate) const fn word(purpose: GrantPurpose) -> &'static str {
    match purpose {
        GrantPurpose::Boot => "boot",
        GrantPurpose::Data => "data",
    }
}

/// Ids of grants that were used, one hexadecimal line each, and `incarnation N` where a grant was
/// of a newer one than before; appended durably.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    state: Mutex<LedgerState>,
}

#[derive(Debug)]
struct LedgerState {
    used: std::collections::HashSet<GrantId>,
    incarnation: Incarnation,
    file: File,
}

const INCARNATION: &str = "incarnation ";

/// 64 Ki grants a file; more than a host meets between two weeks of restarts.
const LEDGER_LIMIT: usize = 64 << 20;

impl Ledger {
    /// Opens the ledger in the state directory. A line that a crash cut short was never used.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(state_dir: &Path) -> Result<Self, FileError> {
        let path = state_dir.join("used-grants");
        let content = match fsfile::read_limited(&path, LEDGER_LIMIT) {
            Ok(content) => content,
            Err(error) if error.is_missing() => {
                fsfile::write_atomic(&path, b"", 0o600)?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        let used = text.lines().filter_map(|line| line.parse().ok()).collect();
        let seen = text.lines().filter_map(|line| line.strip_prefix(INCARNATION)?.parse().ok());
        let incarnation = Incarnation(seen.max().unwrap_or(0));
        let io = |source| FileError::Io { operation: "open", path: path.clone(), source };
        let mut file = OpenOptions::new().append(true).mode(0o600).open(&path).map_err(io)?;
        if !content.is_empty() && !content.ends_with(b"\n") {
            file.write_all(b"\n").map_err(io)?;
        }
        Ok(Self { path, state: Mutex::new(LedgerState { used, incarnation, file }) })
    }

    /// Writes an id down, before anything is done with its grant; refuses what was used, and what
    /// is older than a restore of the authority's store that this host has seen.
    fn spend(&self, id: GrantId, of: Incarnation) -> Result<(), GrantRejection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if of < state.incarnation {
            return Err(GrantRejection::IncarnationOld { granted: of, seen: state.incarnation });
        }
        if state.used.contains(&id) {
            return Err(GrantRejection::Used);
        }
        let io = |source| {
            let path = self.path.clone();
            GrantRejection::Ledger(FileError::Io { operation: "append to", path, source })
        };
        let newer = of > state.incarnation;
        let line = if newer { format!("{INCARNATION}{}\n{id}\n", of.0) } else { format!("{id}\n") };
        state.file.write_all(line.as_bytes()).map_err(io)?;
        state.file.sync_data().map_err(io)?;
        state.used.insert(id);
        state.incarnation = of;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use attest::envelope::SoftwareKey;
    use model::{Digest, Incarnation};
    use serve::{hpke::HpkePublic, keys::SigningKey};

    use super::*;

    fn kmi() -> Kmi {
        crate::plan::tests::kmi("v1")
    }

    struct Bench {
        signer: SigningKey,
        private: HpkePrivate,
        public: HpkePublic,
        ledger: Ledger,
        host: HostId,
        vm: VmId,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let (private, public) = hpke::generate().unwrap();
            let dir = tempfile::tempdir().unwrap();
            Self {
                signer: SigningKey::generate().unwrap(),
                private,
                public,
                ledger: Ledger::open(dir.path()).unwrap(),
                host: "a".parse().unwrap(),
                vm: "v1".parse().unwrap(),
                _dir: dir,
            }
        }

        fn info(&self) -> GrantInfo {
            GrantInfo {
                id: GrantId([9; 16]),
                incarnation: Incarnation(1),
                vm: self.vm.clone(),
                host: self.host.clone(),
                epoch: Epoch(2),
                purpose: GrantPurpose::Boot,
                kmi: kmi(),
                verdict: Digest::sha256([3; 32]),
                issued_at: 1,
                expires_at: 100,
                lease_until: 1000,
                reanchor: false,
                anchor: None,
            }
        }

        fn grant(&self, info: GrantInfo, keys: &[u8]) -> serde_json::Value {
            let bound = serde_json::to_vec(&info).unwrap();
            let sealed = hpke::seal(&self.public, &bound, b"boot", keys).unwrap();
            let grant = Grant { info, enc: sealed.enc.into(), sealed: sealed.ciphertext.into() };
            let key = SoftwareKey::from_pkcs8(self.signer.to_pkcs8().unwrap().expose()).unwrap();
            Envelope::sign(Kind::Grant, &grant, &[&key]).unwrap().to_value()
        }

        fn open(&self, grant: &serde_json::Value, now: u64) -> Result<Opened, GrantRejection> {
            self.open_as(grant, now, GrantId([9; 16]))
        }

        fn open_as(
            &self,
            grant: &serde_json::Value,
            now: u64,
            request: GrantId,
        ) -> Result<Opened, GrantRejection> {
            let expected = Expected {
                host: &self.host,
                vm: &self.vm,
                epoch: Epoch(2),
                kmi: &kmi(),
                purpose: GrantPurpose::Boot,
                request,
                now,
            };
            open(grant, self.signer.spki(), &self.private, &expected, &self.ledger)
        }

        fn refusal(&self, change: impl FnOnce(&mut GrantInfo)) -> &'static str {
            let mut info = self.info();
            change(&mut info);
            self.open(&self.grant(info, &[5; 128]), 50).unwrap_err().name()
        }
    }

    #[test]
    fn a_grant_opens_once_and_never_again_even_by_the_next_agent() {
        let bench = Bench::new();
        let grant = bench.grant(bench.info(), &[5; 128]);
        assert_eq!(bench.open(&grant, 50).unwrap().keys.expose(), &[5; 128]);
        assert_eq!(bench.open(&grant, 50).unwrap_err().name(), "grant-used");
        let reopened = Bench { ledger: Ledger::open(bench._dir.path()).unwrap(), ..bench };
        assert_eq!(reopened.open(&grant, 50).unwrap_err().name(), "grant-used");
    }

    #[test]
    fn a_grant_for_anything_else_is_refused_by_name() {
        let bench = Bench::new();
        let other: HostId = "b".parse().unwrap();
        assert_eq!(bench.refusal(|i| i.host = other), "grant-other-host");
        assert_eq!(bench.refusal(|i| i.epoch = Epoch(1)), "grant-epoch-moved");
        assert_eq!(bench.refusal(|i| i.expires_at = 50), "grant-expired");
        assert_eq!(bench.refusal(|i| i.id = GrantId([8; 16])), "grant-used");
        assert_eq!(bench.refusal(|i| i.vm = "v2".parse().unwrap()), "grant-other-vm");
        assert_eq!(bench.refusal(|i| i.purpose = GrantPurpose::Data), "grant-other-vm");
        assert_eq!(bench.refusal(|i| i.kmi.key_id = Digest::sha256([9; 32])), "grant-other-kmi");
        assert_eq!(bench.refusal(|i| i.kmi.version = 2), "grant-other-kmi");
    }

    #[test]
    fn no_grant_of_before_a_restore_is_opened_after_one_of_after_it() {
        let bench = Bench::new();
        let of = |bench: &Bench, incarnation: u64, id: u8| {
            let incarnation = Incarnation(incarnation);
            let info = GrantInfo { incarnation, id: GrantId([id; 16]), ..bench.info() };
            let grant = bench.grant(info, &[5; 128]);
            let request = GrantId([id; 16]);
            bench.open_as(&grant, 50, request).map(|_| ()).map_err(|refused| refused.name())
        };
        assert_eq!(of(&bench, 1, 1), Ok(()));
        assert_eq!(of(&bench, 2, 2), Ok(()));
        assert_eq!(of(&bench, 1, 3), Err("grant-incarnation-old"));
        let ledger = Ledger::open(bench._dir.path()).unwrap();
        let bench = Bench { ledger, ..bench };
        assert_eq!(of(&bench, 1, 4), Err("grant-incarnation-old"));
        assert_eq!(of(&bench, 2, 5), Ok(()));
    }

    #[test]
    fn a_grant_by_another_signer_or_for_another_session_is_refused() {
        let bench = Bench::new();
        let stranger = Bench::new();
        let foreign = stranger.grant(bench.info(), &[5; 128]);
        assert_eq!(bench.open(&foreign, 50).unwrap_err().name(), "grant-signature-invalid");
        let elsewhere = Bench { public: stranger.public, ..bench };
        let grant = elsewhere.grant(elsewhere.info(), &[5; 128]);
        let refused = elsewhere.open(&grant, 50).unwrap_err().name();
        assert_eq!(refused, "grant-not-sealed-to-session");
    }

    #[test]
    fn keys_of_the_wrong_length_are_refused() {
        let bench = Bench::new();
        let grant = bench.grant(bench.info(), &[5; 96]);
        assert_eq!(bench.open(&grant, 50).unwrap_err().name(), "grant-malformed");
    }
}
