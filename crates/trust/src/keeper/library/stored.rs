//! An entry as it is stored: JSON without the key, which the certificate has in it. A library of
//! many entries is as large as these are.

use der::{Reader as _, SliceReader, Tag, TagNumber, asn1::AnyRef};
use model::api::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::keeper::record::Entry;

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entry = Self::deserialize(deserializer)?;
        // Whatever stands there: the certificate's key is the binding's.
        let key = key_of(&entry.certificate.0);
        entry.key =
            Bytes(key.ok_or_else(|| D::Error::custom("a certificate without a key"))?.to_vec());
        Ok(entry)
    }
}

/// The serial number in a certificate; nothing else of it is looked at.
pub(crate) fn serial_of(certificate: &[u8]) -> Option<&[u8]> {
    let serial: AnyRef<'_> = from_serial(certificate)?.decode().ok()?;
    Some(serial.value())
}

/// The key in a certificate (SubjectPublicKeyInfo, DER); nothing else of it is looked at.
fn key_of(certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = from_serial(certificate)?;
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        fields.tlv_bytes().ok()?;
    }
    fields.tlv_bytes().ok()
}

/// What is signed in a certificate, from the serial number on.
fn from_serial(certificate: &[u8]) -> Option<SliceReader<'_>> {
    let whole: AnyRef<'_> = SliceReader::new(certificate).ok()?.decode().ok()?;
    let mut body = SliceReader::new(whole.value()).ok()?;
    let tbs: AnyRef<'_> = body.decode().ok()?;
    let mut fields = SliceReader::new(tbs.value()).ok()?;
    let version = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    if Tag::peek(&fields).ok()? == version {
        fields.tlv_bytes().ok()?;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use pki::{Ca, CaSpec, KeyUses, Profile, UserCert, Validity};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn an_entry_comes_back_with_the_key_of_its_certificate_and_no_other() {
        let validity = Validity::new(OffsetDateTime::UNIX_EPOCH, std::time::Duration::from_secs(9));
        let spec = CaSpec { common_name: "CA".to_owned(), path_length: 0, validity };
        let (ca, _) = Ca::create_root(&spec).unwrap();
        let key = serve::keys::SigningKey::generate().unwrap();
        let uses = KeyUses { signature: true, ..KeyUses::default() };
        let profile = Profile::User(UserCert { name: "a".to_owned(), uses, ..UserCert::default() });
        let issued = ca.issue(&profile, key.spki(), validity).unwrap();
        assert_eq!(serial_of(&issued.der), Some(issued.serial.as_slice()));
        let certificate = Bytes(issued.der);
        let json = serde_json::json!({"certificate": certificate, "name": "a", "uses": [],
            "use_with": [], "not_before": 0, "not_on_or_after": 9000});
        let mut older = json.clone();
        older["key"] = "AAAA".into();
        older["escrowed"] = false.into();
        for text in [json.clone(), older] {
            let entry: Entry = serde_json::from_value(text).unwrap();
            assert_eq!(entry.key.0, key.spki());
            assert_eq!(serde_json::to_value(&entry).unwrap(), json);
        }
        let mut without = json;
        without["certificate"] = "AAAA".into();
        assert!(serde_json::from_value::<Entry>(without).is_err());
    }
}
