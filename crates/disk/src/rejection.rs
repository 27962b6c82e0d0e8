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
    /// Neither copy of the header has a valid checksum.
    #[error("both copies of the header are damaged")]
    HeaderDamaged,
    /// Another process holds the volume's lock.
    #[error("another process has the volume open")]
    InUse,
    /// A key derivation asks for more memory or time than we spend on an unverified header.
    #[error("the key derivation of key slot {slot} is over our limits")]
    KdfTooCostly {
        /// The key slot.
        slot: u32,
    },
    /// A slot secret has 1 to 512 bytes.
    #[error("a key has 1 to 512 bytes")]
    KeyLength,
    /// No token of the header holds the key-management information that was asked for.
    #[error("no key slot belongs to this key-management information")]
    KmiNotFound,
    /// The header's checksum is right and its content makes no sense.
    #[error("the header's metadata are malformed: {detail}")]
    MetadataMalformed {
        /// What is wrong.
        detail: String,
    },
    /// The file has no LUKS2 header.
    #[error("the file is not a LUKS2 volume")]
    NotLuks2,
    /// A size is zero, too large, or no multiple of the sector.
    #[error("the size {size} is not a positive multiple of {sector} bytes")]
    SizeInvalid {
        /// The size in bytes.
        size: u64,
        /// The sector in bytes.
        sector: u64,
    },
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
    /// The name of the refusal, in kebab-case, for machines and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyExists => "already-exists",
            Self::HeaderDamaged => "header-damaged",
            Self::InUse => "volume-in-use",
            Self::KdfTooCostly { .. } => "kdf-too-costly",
            Self::KeyLength => "key-length",
            Self::KmiNotFound => "kmi-not-found",
            Self::MetadataMalformed { .. } => "metadata-malformed",
            Self::NotLuks2 => "not-luks2",
            Self::SizeInvalid { .. } => "size-invalid",
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
