//! What the signature layer refuses.

use thiserror::Error;

/// Why a signature does not count. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureRejection {
    /// An algorithm that is unknown or not accepted by policy.
    #[error("a signature, digest or canonicalisation algorithm is not accepted")]
    Algorithm,
    /// The element does not have the digest that was signed.
    #[error("the signed element was changed")]
    Digest,
    /// The signature lies in what it signs, but not as its child, or without the transform; or the
    /// transform is there and it does not.
    #[error("the signature is not where its transforms say")]
    Enveloping,
    /// The algorithm is for another kind of key.
    #[error("the signature algorithm does not fit the key")]
    KeyMismatch,
    /// Not the structure of the standard.
    #[error("the signature is malformed")]
    Malformed,
    /// No signature where one is required.
    #[error("there is no signature")]
    Missing,
    /// A signature that carries objects.
    #[error("the signature carries objects")]
    Object,
    /// The reference is to another element than the one that is processed.
    #[error("the signature covers another element than the one that is processed")]
    ReferenceElsewhere,
    /// A reference to something outside of the document.
    #[error("the signature refers to something outside of the message")]
    ReferenceExternal,
    /// Not exactly one reference.
    #[error("the signature has more than one reference")]
    ReferencesMany,
    /// The reference names no element.
    #[error("the signature refers to an Id that no element has")]
    ReferenceUnresolved,
    /// A transform that is unknown, or that stands where it must not.
    #[error("the signature has a transform that is not accepted")]
    Transform,
    /// An XPath transform.
    #[error("the signature has an XPath transform")]
    TransformXpath,
    /// An XSLT transform.
    #[error("the signature has an XSLT transform")]
    TransformXslt,
    /// A MAC that is cut short.
    #[error("the signature is a truncated MAC")]
    TruncatedMac,
    /// The signature value is not by this key over this.
    #[error("the signature does not verify")]
    Value,
}

impl SignatureRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Algorithm => "signature-algorithm",
            Self::Digest => "signature-digest",
            Self::Enveloping => "signature-enveloping",
            Self::KeyMismatch => "signature-key-mismatch",
            Self::Malformed => "signature-malformed",
            Self::Missing => "signature-missing",
            Self::Object => "signature-object",
            Self::ReferenceElsewhere => "signature-reference-elsewhere",
            Self::ReferenceExternal => "signature-reference-external",
            Self::ReferencesMany => "signature-references-many",
            Self::ReferenceUnresolved => "signature-reference-unresolved",
            Self::Transform => "signature-transform",
            Self::TransformXpath => "signature-transform-xpath",
            Self::TransformXslt => "signature-transform-xslt",
            Self::TruncatedMac => "signature-truncated-mac",
            Self::Value => "signature-value",
        }
    }
}
