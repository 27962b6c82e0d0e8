//! What the TCG adds to X.509: key purposes and TPM attributes (TCG EK Credential Profile for TPM
//! Family 2.0, 2.5, sections 3.2 and 4).

use der::{
    Decode as _, Encode as _, Tag, Tagged as _,
    asn1::{Any, ObjectIdentifier},
};
use x509_cert::{
    attr::AttributeTypeAndValue,
    name::{Name, RdnSequence, RelativeDistinguishedName},
};

/// tcg-kp-EKCertificate.
pub const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// tcg-kp-AIKCertificate.
pub const AK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
/// tcg-at-tpmManufacturer.
pub const TPM_MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
/// tcg-at-tpmModel.
pub const TPM_MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");
/// tcg-at-tpmVersion.
pub const TPM_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.3");

/// The subjectDirectoryAttributes extension: tcg-at-tpmSpecification (2.23.133.2.16) with family
/// "2.0", level 0, revision 159.
pub(crate) const SPECIFICATION: [u8; 27] = [
    0x30, 0x19, 0x30, 0x17, 0x06, 0x05, 0x67, 0x81, 0x05, 0x02, 0x10, 0x31, 0x0e, 0x30, 0x0c, 0x0c,
    0x03, 0x32, 0x2e, 0x30, 0x02, 0x01, 0x00, 0x02, 0x02, 0x00, 0x9f,
];

/// Which TPM an EK certificate is for: the three attributes of its subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmModel {
    /// `id:` and the vendor's TCG identifier in eight hexadecimal digits.
    pub manufacturer: String,
    /// The vendor's part number.
    pub model: String,
    /// `id:` and the firmware version in eight hexadecimal digits.
    pub version: String,
}

impl TpmModel {
    /// The attributes as a directory name: one relative name each.
    pub(crate) fn to_name(&self) -> der::Result<Name> {
        let parts = [
            (TPM_MANUFACTURER, &self.manufacturer),
            (TPM_MODEL, &self.model),
            (TPM_VERSION, &self.version),
        ];
        let mut names = Vec::new();
        for (oid, text) in parts {
            let value = Any::new(Tag::Utf8String, text.as_bytes())?;
            let attribute = AttributeTypeAndValue { oid, value };
            names.push(RelativeDistinguishedName::try_from(vec![attribute])?);
        }
        Name::from_der(&RdnSequence::from(names).to_der()?)
    }

    /// The attributes from a directory name; `None` if one is missing or not text.
    pub(crate) fn from_name(name: &Name) -> Option<Self> {
        let text = |oid| {
            let attribute = name.iter().find(|attribute| attribute.oid == oid)?;
            let printable = matches!(attribute.value.tag(), Tag::Utf8String | Tag::PrintableString);
            let text = std::str::from_utf8(attribute.value.value()).ok()?;
            (printable && text.len() <= 128).then(|| text.to_owned())
        };
        Some(Self {
            manufacturer: text(TPM_MANUFACTURER)?,
            model: text(TPM_MODEL)?,
            version: text(TPM_VERSION)?,
        })
    }
}
