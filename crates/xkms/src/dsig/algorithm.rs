//! Algorithms by their URIs, and which of them count.

use aws_lc_rs::digest;

/// Elliptic curves of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl Curve {
    /// The `urn:oid:` name of `ECKeyValue`.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::P256 => "urn:oid:1.2.840.10045.3.1.7",
            Self::P384 => "urn:oid:1.3.132.0.34",
        }
    }

    /// The curve of a `urn:oid:` name.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        [Self::P256, Self::P384].into_iter().find(|curve| curve.uri() == uri)
    }
}

/// Signature algorithms. ECDSA fixes the curve: SHA-256 with P-256, SHA-384 with P-384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    EcdsaSha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaSha384,
    /// HMAC with SHA-1, as peers compute it under a shared secret.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// RSA PKCS#1 v1.5 with SHA-1.
    RsaSha1,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RsaSha256,
}

impl SignatureAlgorithm {
    const ALL: [Self; 6] = [
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::HmacSha1,
        Self::HmacSha256,
        Self::RsaSha1,
        Self::RsaSha256,
    ];

    /// The URI of `SignatureMethod`.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::EcdsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
            Self::EcdsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
            Self::HmacSha1 => "http://www.w3.org/2000/09/xmldsig#hmac-sha1",
            Self::HmacSha256 => "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256",
            Self::RsaSha1 => "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
            Self::RsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        }
    }

    /// The algorithm of a URI.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.uri() == uri)
    }

    /// The digest that goes with it in what this crate signs.
    pub(crate) const fn digest(self) -> DigestAlgorithm {
        match self {
            Self::EcdsaSha384 => DigestAlgorithm::Sha384,
            Self::HmacSha1 | Self::RsaSha1 => DigestAlgorithm::Sha1,
            Self::EcdsaSha256 | Self::HmacSha256 | Self::RsaSha256 => DigestAlgorithm::Sha256,
        }
    }
}

/// Digest algorithms of references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The URI of `DigestMethod`.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Sha1 => "http://www.w3.org/2000/09/xmldsig#sha1",
            Self::Sha256 => "http://www.w3.org/2001/04/xmlenc#sha256",
            Self::Sha384 => "http://www.w3.org/2001/04/xmldsig-more#sha384",
            Self::Sha512 => "http://www.w3.org/2001/04/xmlenc#sha512",
        }
    }

    /// The algorithm of a URI.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.uri() == uri)
    }

    pub(crate) fn of(self, bytes: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes)
    }
}

/// Where SHA-1 counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sha1 {
    /// Nowhere.
    #[default]
    Refused,
    /// In MACs under a shared secret, and the digests in them, as older peers make them.
    InMacs,
    /// Everywhere.
    Everywhere,
}

/// Which algorithms count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignaturePolicy {
    /// Where SHA-1 counts.
    pub sha1: Sha1,
}

impl SignaturePolicy {
    /// Whether a signature by `signature` over `digest` counts.
    pub(crate) fn accepts(self, signature: SignatureAlgorithm, digest: DigestAlgorithm) -> bool {
        let mac =
            matches!(signature, SignatureAlgorithm::HmacSha1 | SignatureAlgorithm::HmacSha256);
        let weak = matches!(signature, SignatureAlgorithm::HmacSha1 | SignatureAlgorithm::RsaSha1)
            || digest == DigestAlgorithm::Sha1;
        match self.sha1 {
            Sha1::Refused => !weak,
            Sha1::InMacs => !weak || mac,
            Sha1::Everywhere => true,
        }
    }
}
