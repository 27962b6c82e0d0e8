//! Backups: everything that an authority is, in one file under a key of its own.
//!
//! ```text
//! header (one line of JSON: when, which incarnation, how many shares) '\n'
//! nonce (12) | AES-256-GCM of the parts, the header's line as associated data | tag (16)
//! part = length of the name (u32, little-endian) | name | length (u64) | content
//! ```
//! The first part is the root key; the others are the files of the state directory, the store and
//! the audit log among them. The backup's key is made for this backup and leaves the process as
//! k-of-n shares only: with a backup and its shares a whole authority can be had, so each share is
//! another person's.
//!
//! **Invariants:** a backup is of a store that is the newest (its anchor was checked) and that
//! nobody else has open; a file name out of a backup never leads out of the state directory.
//! Deliberately absent: operators' private keys, evidence files, the TPM's blob of the root key.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anchor::Anchored;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use model::{Incarnation, Secret};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, fsfile, random};
use thiserror::Error;

use crate::{
    audit::{Actor, Auditor, Done},
    command::Told,
    config::Config,
    ground::{self, GroundError, Opened},
    init,
    paths::Paths,
    root::{RootError, RootKey},
    shares::{self, SharesError},
    tpmlink::TpmLink,
    vmkey::KEY,
};

/// Longest backup that is read.
const MAX_BACKUP: usize = 4 << 30;
/// Longest header.
const MAX_HEADER: usize = 4096;
/// Name of the first part.
const ROOT: &str = "root-key";

/// A backup could not be made or read.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    /// It was altered, cut short, or these are not its shares.
    #[error("the backup was altered, or these are not its shares")]
    Altered,
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// The authority that is backed up.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// A directory could not be read.
    #[error("the state directory cannot be read")]
    Directory(#[from] std::io::Error),
    /// It is no backup, or of a later version.
    #[error("this is no backup of an authority, or one of a later version")]
    Malformed,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::RandomError),
    /// The root key.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The shares.
    #[error(transparent)]
    Shares(#[from] SharesError),
}

impl BackupError {
    /// The refusal's name and hint, if a rule said no.
    pub(crate) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Altered => Some(("backup-altered", "use the shares that were shown with it")),
            Self::Ground(error) => error.refusal(),
            Self::Shares(_) => Some(("shares-wrong", "enter as many shares as were asked for")),
            Self::File(_)
            | Self::Directory(_)
            | Self::Malformed
            | Self::Random(_)
            | Self::Root(_) => None,
        }
    }
}

/// What a backup says of itself, unencrypted and authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// `vouchsafe-backup`.
    format: String,
    /// 1.
    version: u32,
    /// When it was made, Unix milliseconds.
    pub(crate) created_at: u64,
    /// The store's incarnation then.
    pub(crate) incarnation: Incarnation,
    /// Shares that open it.
    pub(crate) threshold: u8,
    /// Shares that were made.
    pub(crate) shares: u8,
}

/// What is told to the one who made a backup, as JSON on stdout.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    backup: PathBuf,
    bytes: usize,
    audit_entries: u64,
    /// Shares of the backup's key: shown once, never stored.
    backup_shares: Vec<String>,
    threshold: u8,
}

impl Told for Made {
    fn in_words(&self) -> String {
        let Self { backup, bytes, audit_entries, .. } = self;
        format!(
            "backup: {} ({bytes} bytes, {audit_entries} audit entries)\n\n{}\nKeep none of them \
             beside the backup.\n\nnext: start vouchsafe-authority again",
            backup.display(),
            init::shares_in_words("shares of its key", &self.backup_shares, self.threshold),
        )
    }
}

/// The parts of an opened backup.
#[derive(Debug)]
pub(crate) struct Content {
    /// The root key.
    pub(crate) root: RootKey,
    /// The files of the state directory, by their names in it.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
}

/// Backs the authority up into a new file. The server must not be running.
///
/// # Errors
/// [`BackupError`].
pub(crate) async fn make(
    config: &Config,
    clock: &SharedClock,
    out: &Path,
) -> Result<Made, BackupError> {
    let paths = Paths::new(&config.state_dir);
    ground::must_exist(&paths.marker())?;
    let tpm = TpmLink::new(config.tpm_address().map_err(GroundError::from)?);
    let tpm = tpm.map_err(GroundError::from)?;
    let root = ground::open_root(&paths, &tpm).await?;
    let opened = Opened::new(paths, &root, tpm, clock)?;
    let incarnation = opened.incarnation().await?;
    let ground = opened.anchor_ground(config, clock, incarnation);
    let mut anchored = Anchored::resume(ground).await.map_err(GroundError::from)?;
    let auditor = Auditor::new(opened.log.clone(), clock.clone());
    let detail = format!("incarnation {}, to {}", incarnation.0, out.display());
    let done = Done::new("authority-backed-up", "authority").detail(detail);
    auditor.done(&Actor::operator("local"), done).await.map_err(GroundError::audit)?;
    anchored.advance().await.map_err(GroundError::from)?;
    let header = Header {
        format: "vouchsafe-backup".to_owned(),
        version: 1,
        created_at: clock.unix_ms(),
        incarnation,
        threshold: config.recovery.threshold,
        shares: config.recovery.shares,
    };
    // Nothing is written while the store is held open here and idle.
    let parts = gather(&opened.paths, &root)?;
    let key: Secret<[u8; KEY]> = random::secret()?;
    let sealed = seal(&header, &key, parts)?;
    fsfile::write_new(out, &sealed, 0o600)?;
    let audit_entries = opened.log.tree_head().size;
    opened.close().await?;
    let backup_shares = shares::split(&key, header.threshold, header.shares)?;
    let (bytes, threshold) = (sealed.len(), header.threshold);
    Ok(Made { backup: out.to_owned(), bytes, audit_entries, backup_shares, threshold })
}

/// The files of the state directory that belong in a backup, and the root key before them.
fn gather(paths: &Paths, root: &RootKey) -> Result<Secret<Vec<u8>>, BackupError> {
    let left_out = [paths.root(), paths.operator_key(), paths.marker()];
    let mut files = Vec::new();
    for dir in [paths.dir().to_owned(), paths.audit()] {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let passing = path.extension().is_some_and(|kind| kind == "new")
                || path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("export-"));
            if path.is_file() && !left_out.contains(&path) && !passing {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut parts = Secret::new(Vec::new());
    put(parts.expose_mut(), ROOT, root.expose().expose());
    for path in files {
        let name = path.strip_prefix(paths.dir()).map_err(|_| BackupError::Malformed)?;
        let content = fsfile::read_limited(&path, MAX_BACKUP)?;
        put(parts.expose_mut(), &name.to_string_lossy(), &content);
    }
    Ok(parts)
}

fn put(parts: &mut Vec<u8>, name: &str, content: &[u8]) {
    parts.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    parts.extend_from_slice(name.as_bytes());
    parts.extend_from_slice(&u64::try_from(content.len()).unwrap_or(u64::MAX).to_le_bytes());
    parts.extend_from_slice(content);
}

fn seal(
    header: &Header,
    key: &Secret<[u8; KEY]>,
    mut parts: Secret<Vec<u8>>,
) -> Result<Vec<u8>, BackupError> {
    let mut line = serde_json::to_vec(header).map_err(|_| BackupError::Malformed)?;
    line.push(b'\n');
    let nonce: [u8; NONCE_LEN] = random::bytes()?;
    let tag = cipher(key)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&line),
            parts.expose_mut(),
        )
        .map_err(|_| BackupError::Malformed)?;
    Ok([&line, &nonce[..], parts.expose(), tag.as_ref()].concat())
}

/// Opens a backup with its shares.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn open(path: &Path, shares: &[String]) -> Result<(Header, Content), BackupError> {
    let whole = fsfile::read_limited(path, MAX_BACKUP)?;
    unseal(&whole, shares)
}

fn unseal(whole: &[u8], shares: &[String]) -> Result<(Header, Content), BackupError> {
    let end = whole.iter().take(MAX_HEADER).position(|byte| *byte == b'\n');
    let end = end.ok_or(BackupError::Malformed)?.saturating_add(1);
    let (line, rest) = whole.split_at_checked(end).ok_or(BackupError::Malformed)?;
    let header: Header = serde_json::from_slice(line).map_err(|_| BackupError::Malformed)?;
    if header.format != "vouchsafe-backup" || header.version != 1 {
        return Err(BackupError::Malformed);
    }
    let key = shares::join(shares, header.threshold)?;
    let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(BackupError::Altered)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BackupError::Altered)?;
    let mut parts = Secret::new(sealed.to_vec());
    let length = cipher(&key)?
        .open_in_place(nonce, Aad::from(line), parts.expose_mut())
        .map_err(|_| BackupError::Altered)?
        .len();
    parts.expose_mut().truncate(length);
    Ok((header, content(parts.expose())?))
}

fn content(parts: &[u8]) -> Result<Content, BackupError> {
    let (mut rest, mut root, mut files) = (parts, None, Vec::new());
    while !rest.is_empty() {
        let (name, after) = take(rest, 4)?;
        let (name, content) =
            (std::str::from_utf8(name).map_err(|_| BackupError::Malformed)?, after);
        let (content, after) = take(content, 8)?;
        rest = after;
        if name == ROOT {
            let key: [u8; KEY] = content.try_into().map_err(|_| BackupError::Malformed)?;
            root = Some(RootKey::from_secret(Secret::new(key)));
        } else {
            files.push((inside(name)?, content.to_vec()));
        }
    }
    Ok(Content { root: root.ok_or(BackupError::Malformed)?, files })
}

/// A length of `size` bytes, then as many bytes.
fn take(from: &[u8], size: usize) -> Result<(&[u8], &[u8]), BackupError> {
    let (length, rest) = from.split_at_checked(size).ok_or(BackupError::Malformed)?;
    let value = length.iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let length = usize::try_from(value).map_err(|_| BackupError::Malformed)?;
    rest.split_at_checked(length).ok_or(BackupError::Malformed)
}

/// A name that stays in the state directory.
fn inside(name: &str) -> Result<PathBuf, BackupError> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.is_empty() { Ok(path.to_owned()) } else { Err(BackupError::Malformed) }
}

fn cipher(key: &Secret<[u8; KEY]>) -> Result<LessSafeKey, BackupError> {
    let unbound = UnboundKey::new(&AES_256_GCM, key.expose());
    Ok(LessSafeKey::new(unbound.map_err(|_| BackupError::Malformed)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            format: "vouchsafe-backup".to_owned(),
            version: 1,
            created_at: 7,
            incarnation: Incarnation(1),
            threshold: 2,
            shares: 3,
        }
    }

    fn backup(files: &[(&str, &[u8])]) -> (Vec<u8>, Vec<String>) {
        let mut parts = Secret::new(Vec::new());
        put(parts.expose_mut(), ROOT, &[9; KEY]);
        for (name, content) in files {
            put(parts.expose_mut(), name, content);
        }
        let key = Secret::new([5; KEY]);
        let shares = shares::split(&key, 2, 3).unwrap();
        (seal(&header(), &key, parts).unwrap(), shares)
    }

    #[test]
    fn a_backup_opens_with_enough_of_its_own_shares_and_gives_every_file() {
        let (whole, shares) = backup(&[("store.redb", b"records"), ("audit/1", b"")]);
        let (read, content) = unseal(&whole, &shares[1..]).unwrap();
        assert_eq!(read, header());
        assert_eq!(content.root.expose().expose(), &[9; KEY]);
        assert_eq!(content.files.len(), 2);
        assert_eq!(content.files[0], ("store.redb".into(), b"records".to_vec()));
        assert!(unseal(&whole, &shares[..1]).is_err());
        let others = shares::split(&Secret::new([6; KEY]), 2, 3).unwrap();
        assert!(matches!(unseal(&whole, &others), Err(BackupError::Altered)));
    }

    #[test]
    fn every_altered_byte_is_noticed_and_nothing_of_it_is_plain() {
        let (whole, shares) = backup(&[("store.redb", b"records")]);
        assert!(!whole.windows(7).any(|part| part == b"records"));
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(unseal(&altered, &shares[..2]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_state_directory() {
        for name in ["../ca.pem", "/etc/passwd", "audit/../../x", "."] {
            let (whole, shares) = backup(&[(name, b"x")]);
            assert!(matches!(unseal(&whole, &shares), Err(BackupError::Malformed)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_parts_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = content(&bytes);
        }
    }
}
