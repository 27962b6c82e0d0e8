//! Why a chain was not accepted.

use thiserror::Error;

/// The rule that a certificate or chain broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertRejection {
    /// Its validity is over.
    #[error("a certificate of the chain has expired")]
    Expired,
    /// An extension occurs twice.
    #[error("a certificate has the same extension twice")]
    ExtensionTwice,
    /// A critical extension that cannot be evaluated here.
    #[error("a certificate has a critical extension that is not known here")]
    ExtensionUnknown,
    /// The issuer's key is of another kind than the signature, or too weak.
    #[error("an issuer's key is too weak or does not fit the signature")]
    IssuerKey,
    /// The issuer's key usage lacks keyCertSign.
    #[error("an issuer's key must not sign certificates")]
    IssuerKeyUsage,
    /// The issuer is no CA.
    #[error("an issuer is no certification authority")]
    IssuerNotCa,
    /// No path to an anchor.
    #[error("no trust anchor issued this certificate")]
    IssuerUnknown,
    /// The leaf's key usage does not fit.
    #[error("the certificate's key must not be used like this")]
    KeyUsage,
    /// The leaf is a CA.
    #[error("the certificate is that of a certification authority")]
    LeafIsCa,
    /// Not one DER certificate of version 3.
    #[error("a certificate is malformed")]
    Malformed,
    /// A name constraint, or a name under one, that cannot be evaluated.
    #[error("a name constraint cannot be evaluated here")]
    NameConstraintUnknown,
    /// A name is within an excluded subtree.
    #[error("a CA of the chain excludes a name of a certificate below it")]
    NameExcluded,
    /// A name is in none of the permitted subtrees.
    #[error("a CA of the chain does not permit a name of a certificate below it")]
    NameNotPermitted,
    /// Its validity has not begun.
    #[error("a certificate of the chain is not valid yet")]
    NotYetValid,
    /// More CAs than an issuer, or this verifier, allows.
    #[error("the chain is longer than allowed")]
    PathTooLong,
    /// A policy mapping to or from anyPolicy.
    #[error("a policy mapping of the chain is not allowed")]
    PolicyMapping,
    /// A policy is required and the chain is valid for none that will do.
    #[error("the chain is not valid for a policy that is required")]
    PolicyMissing,
    /// The extended key usage does not fit.
    #[error("the certificate is for another purpose")]
    Purpose,
    /// Too many signature checks.
    #[error("the search for a path took too long")]
    SearchTooLong,
    /// The signature does not verify.
    #[error("a signature does not verify")]
    Signature,
    /// A signature algorithm that is not accepted (SHA-1, MD5, others).
    #[error("a certificate is signed with an algorithm that is not accepted")]
    SignatureAlgorithm,
    /// A certificate over 16 KiB.
    #[error("a certificate is larger than 16 KiB")]
    TooLarge,
    /// More certificates than are looked at.
    #[error("there are too many certificates")]
    TooMany,
}

impl CertRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Expired => "certificate-expired",
            Self::ExtensionTwice => "certificate-extension-twice",
            Self::ExtensionUnknown => "certificate-extension-unknown",
            Self::IssuerKey => "certificate-issuer-key",
            Self::IssuerKeyUsage => "certificate-issuer-key-usage",
            Self::IssuerNotCa => "certificate-issuer-not-ca",
            Self::IssuerUnknown => "certificate-issuer-unknown",
            Self::KeyUsage => "certificate-key-usage",
            Self::LeafIsCa => "certificate-is-ca",
            Self::Malformed => "certificate-malformed",
            Self::NameConstraintUnknown => "certificate-name-constraint-unknown",
            Self::NameExcluded => "certificate-name-excluded",
            Self::NameNotPermitted => "certificate-name-not-permitted",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::PathTooLong => "certificate-path-too-long",
            Self::PolicyMapping => "certificate-policy-mapping",
            Self::PolicyMissing => "certificate-policy-missing",
            Self::Purpose => "certificate-purpose",
            Self::SearchTooLong => "certificate-search-too-long",
            Self::Signature => "certificate-signature",
            Self::SignatureAlgorithm => "certificate-signature-algorithm",
            Self::TooLarge => "certificate-too-large",
            Self::TooMany => "certificate-too-many",
        }
    }
}
