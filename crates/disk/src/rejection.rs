//! Why a volume is not created or opened: [`Rejection`] if a rule said no, [`VolumeError`] if it
//! could not be decided or done.

use std::io;

use model::Digest;
use thiserror::Error;

/// A rule said no.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The file to be created exists; volumes are never overwritten.
    #[error("the file exists already")]
    AlreadyExists,
    /// A file of counters is not authentic.
    #[error("the anchor file is damaged or of another key")]
    AnchorDamaged,
    /// The header counts further than the anchor: it belongs to another anchor.
    #[error("the volume is not the one that its anchor counts")]
    AnchorMismatch,
    /// Nothing in the file says which format it has. Raw must be said.
    #[error("the file has no format that we know; a raw one must be called raw")]
    FormatUnknown,
    /// Neither copy of the header has a valid checksum.
    #[error("both copies of the header are damaged")]
    HeaderDamaged,
    /// Two authentic copies of the header of one generation differ.
    #[error("the copies of the header contradict each other")]
    HeaderForked,
    /// The log follows a later header than the newest one in the file.
    #[error("the header is older than the log behind it")]
    HeaderStale,
    /// Another process holds the volume's lock.
    #[error("another process has the volume open")]
    InUse,
    /// A key derivation asks for more memory or time than we spend on an unverified header.
    #[error("the key derivation of key slot {slot} is over our limits")]
    KdfTooCostly {
        /// The key slot.
        slot: u32,
    },
    /// The key area in force is not the one that the header names.
    #[error("the key area was altered")]
    KeyAreaAltered,
    /// A slot secret has 1 to 512 bytes.
    #[error("a key has 1 to 512 bytes")]
    KeyLength,
    /// An encrypted volume needs a key.
    #[error("the volume is encrypted and no key was given")]
    KeyMissing,
    /// The key slot that was named holds nothing.
    #[error("the key slot is empty")]
    KeySlotEmpty,
    /// All key slots are taken.
    #[error("all key slots are taken")]
    KeySlotsFull,
    /// No token of the header holds the key-management information that was asked for.
    #[error("no key slot belongs to this key-management information")]
    KmiNotFound,
    /// Without its last key slot nobody could open the volume again.
    #[error("the last key slot cannot be removed")]
    LastKeySlot,
    /// Records of the log are missing or altered, which no crash explains.
    #[error("the log is damaged")]
    LogDamaged,
    /// The header's checksum is right and its content makes no sense.
    #[error("the header's metadata are malformed: {detail}")]
    MetadataMalformed {
        /// What is wrong.
        detail: String,
    },
    /// The file has no LUKS1 header.
    #[error("the file is not a LUKS1 volume")]
    NotLuks1,
    /// The file has no LUKS2 header.
    #[error("the file is not a LUKS2 volume")]
    NotLuks2,
    /// The file has no vault header.
    #[error("the file is not a vault volume")]
    NotVault,
    /// A page of the tree, of the sessions or of the snapshots does not open.
    #[error("a metadata page is damaged")]
    PageDamaged,
    /// The header is older than what the anchor says was written.
    #[error("the volume is older than its anchor says: an earlier copy was put in its place")]
    RolledBack,
    /// A sector does not open.
    #[error("the sector at byte {position} is damaged")]
    SectorDamaged {
        /// Byte of the exported disk where it begins.
        position: u64,
    },
    /// What is to be cut off the disk is not empty.
    #[error("the part of the disk that would be cut off holds data")]
    ShrinkLosesData,
    /// A size is zero, too large, or no multiple of the sector.
    #[error("the size {size} is zero, too large, or no multiple of {sector} bytes")]
    SizeInvalid {
        /// The size in bytes.
        size: u64,
        /// The sector in bytes.
        sector: u64,
    },
    /// A snapshot of that name exists, or the name is empty or longer than 64 bytes.
    #[error("a snapshot needs a name of its own, 1 to 64 bytes")]
    SnapshotName,
    /// The volume has no snapshot of that name.
    #[error("the volume has no such snapshot")]
    SnapshotNotFound,
    /// The source is not the one that was meant.
    #[error("the source has the digest {found}")]
    SourceDigestMismatch {
        /// Digest of what was read.
        found: Digest,
    },
    /// The file ends before the data that its header describes.
    #[error("the file ends before its data do")]
    Truncated,
    /// A feature of LUKS2 that is not implemented here, or one that we refuse.
    #[error("not supported: {what}")]
    Unsupported {
        /// The feature.
        what: String,
    },
    /// No key slot opens with this key.
    #[error("no key slot opens with this key")]
    WrongKey,
}

impl Rejection {
    /// The rejection inside an error of the data path, if a rule said no and not the medium.
    #[must_use]
    pub fn inside(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// The name of the refusal, in kebab-case, for machines and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyExists => "already-exists",
            Self::AnchorDamaged => "anchor-damaged",
            Self::AnchorMismatch => "anchor-mismatch",
            Self::FormatUnknown => "format-unknown",
            Self::HeaderDamaged => "header-damaged",
            Self::HeaderForked => "header-forked",
            Self::HeaderStale => "header-stale",
            Self::InUse => "volume-in-use",
            Self::KdfTooCostly { .. } => "kdf-too-costly",
            Self::KeyAreaAltered => "key-area-altered",
            Self::KeyLength => "key-length",
            Self::KeyMissing => "key-missing",
            Self::KeySlotEmpty => "key-slot-empty",
            Self::KeySlotsFull => "key-slots-full",
            Self::KmiNotFound => "kmi-not-found",
            Self::LastKeySlot => "last-key-slot",
            Self::LogDamaged => "log-damaged",
            Self::MetadataMalformed { .. } => "metadata-malformed",
            Self::NotLuks1 => "not-luks1",
            Self::NotLuks2 => "not-luks2",
            Self::NotVault => "not-vault",
            Self::PageDamaged => "page-damaged",
            Self::RolledBack => "rolled-back",
            Self::SectorDamaged { .. } => "sector-damaged",
            Self::SizeInvalid { .. } => "size-invalid",
            Self::SnapshotName => "snapshot-name",
            Self::SnapshotNotFound => "snapshot-not-found",
            Self::ShrinkLosesData => "shrink-loses-data",
            Self::SourceDigestMismatch { .. } => "source-digest-mismatch",
            Self::Truncated => "volume-truncated",
            Self::Unsupported { .. } => "unsupported",
            Self::WrongKey => "wrong-key",
        }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::MetadataMalformed { detail: detail.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}

/// A volume could not be created or opened.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// A rule said no.
    #[error("the volume is refused")]
    Refused(#[from] Rejection),
    /// The operating system said no.
    #[error("could not {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to {what}")]
    Crypto {
        /// What was being done.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl From<model::anchor::Rejection> for Rejection {
    fn from(rejection: model::anchor::Rejection) -> Self {
        match rejection {
            model::anchor::Rejection::AnchorMismatch => Self::AnchorMismatch,
            model::anchor::Rejection::RolledBack => Self::RolledBack,
        }
    }
}

impl From<model::anchor::Rejection> for VolumeError {
    fn from(rejection: model::anchor::Rejection) -> Self {
        Self::Refused(rejection.into())
    }
}

impl VolumeError {
    /// The refusal, if that is what it is.
    #[must_use]
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            Self::Io { .. } | Self::Crypto { .. } | Self::Cancelled => None,
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
