//! The JSON metadata (specification, section 3), with our limits. Members that we do not know are
//! left alone; what we cannot honour is refused when the volume is opened.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::Kmi;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Rejection;

/// Type of the token that holds the key-management information of its key slots.
pub const KMI_TOKEN: &str = "vouchsafe-kmi";

/// Most objects of one kind (the specification's limit for key slots and tokens).
const OBJECTS_MAX: usize = 32;

/// A number that JSON carries as a decimal string, because it may exceed 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("not a decimal number"))
    }
}

/// Bytes that JSON carries in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// The whole JSON object of a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub(super) keyslots: BTreeMap<u32, Keyslot>,
    pub(super) tokens: BTreeMap<u32, serde_json::Value>,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) digests: BTreeMap<u32, KeyDigest>,
    pub(super) config: Config,
}

/// A place where a volume key is stored encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Keyslot {
    Luks2(Luks2Keyslot),
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Luks2Keyslot {
    pub(super) key_size: u32,
    /// 0: only if named, 1: normal, 2: first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<u8>,
    pub(super) af: AntiForensic,
    pub(super) area: Area,
    pub(super) kdf: Kdf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AntiForensic {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) stripes: u32,
    pub(super) hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Area {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) offset: Number,
    pub(super) size: Number,
    pub(super) encryption: String,
    pub(super) key_size: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Kdf {
    Pbkdf2 { hash: String, iterations: u32, salt: Base64 },
    Argon2i { time: u32, memory: u32, cpus: u32, salt: Base64 },
    Argon2id { time: u32, memory: u32, cpus: u32, salt: Base64 },
}

/// A run of the device and how it is encrypted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Segment {
    Crypt(CryptSegment),
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CryptSegment {
    pub(super) offset: Number,
    /// Bytes, or `dynamic` for all the rest.
    pub(super) size: String,
    pub(super) iv_tweak: Number,
    pub(super) encryption: String,
    pub(super) sector_size: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) integrity: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
}

/// Verifies that a candidate is the volume key of some segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyDigest {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) keyslots: Vec<Number>,
    pub(super) segments: Vec<Number>,
    pub(super) hash: String,
    pub(super) iterations: u32,
    pub(super) salt: Base64,
    pub(super) digest: Base64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) json_size: Number,
    pub(super) keyslots_size: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requirements: Option<Requirements>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requirements {
    #[serde(default)]
    pub(super) mandatory: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct KmiToken {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<Number>,
    kmi: Kmi,
}

impl Metadata {
    /// Parses a JSON area: an object, then zeros.
    ///
    /// # Errors
    /// [`Rejection::MetadataMalformed`].
    pub fn parse(area: &[u8]) -> Result<Self, Rejection> {
        let end = area.iter().position(|&b| b == 0).unwrap_or(area.len());
        let text = area.get(..end).unwrap_or_default();
        let parsed: Self =
            serde_json::from_slice(text).map_err(|e| Rejection::malformed(e.to_string()))?;
        let counts = [
            parsed.keyslots.len(),
            parsed.tokens.len(),
            parsed.segments.len(),
            parsed.digests.len(),
        ];
        if counts.into_iter().any(|count| count > OBJECTS_MAX) {
            return Err(Rejection::malformed("too many objects"));
        }
        Ok(parsed)
    }

    /// The metadata as JSON text.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Rejection> {
        serde_json::to_vec(self).map_err(|e| Rejection::malformed(e.to_string()))
    }

    /// The key-management informations in the header, each with its key slots.
    pub(super) fn kmis(&self) -> impl Iterator<Item = (Kmi, Vec<u32>)> + '_ {
        self.tokens.values().filter_map(|token| {
            let token = KmiToken::deserialize(token).ok()?;
            let slots = token.keyslots.iter().filter_map(|n| u32::try_from(n.0).ok()).collect();
            (token.kind == KMI_TOKEN).then_some((token.kmi, slots))
        })
    }

    /// A token that binds `kmi` to one key slot.
    pub(super) fn kmi_token(kmi: &Kmi, slot: u32) -> Result<serde_json::Value, Rejection> {
        let token = KmiToken {
            kind: KMI_TOKEN.to_owned(),
            keyslots: vec![Number(u64::from(slot))],
            kmi: kmi.clone(),
        };
        serde_json::to_value(token).map_err(|e| Rejection::malformed(e.to_string()))
    }

    /// The one segment that we serve.
    pub(super) fn segment(&self) -> Result<(u32, &CryptSegment), Rejection> {
        let needs = self.config.requirements.as_ref().and_then(|r| r.mandatory.first());
        if let Some(need) = needs {
            return Err(Rejection::unsupported(format!("the requirement {need}")));
        }
        let mut segments = self.segments.iter();
        let (Some((&id, Segment::Crypt(segment))), None) = (segments.next(), segments.next())
        else {
            return Err(Rejection::unsupported("other than one encrypted segment"));
        };
        if segment.integrity.is_some() {
            return Err(Rejection::unsupported("integrity"));
        }
        if !segment.flags.is_empty() {
            return Err(Rejection::unsupported("a segment with flags"));
        }
        if segment.encryption != "aes-xts-plain64" {
            return Err(Rejection::unsupported(format!("the cipher {}", segment.encryption)));
        }
        if ![512, 1024, 2048, 4096].contains(&segment.sector_size) {
            return Err(Rejection::malformed("sector size"));
        }
        Ok((id, segment))
    }

    /// The digest that verifies keys of `segment`.
    pub(super) fn digest_of(&self, segment: u32) -> Result<&KeyDigest, Rejection> {
        self.digests
            .values()
            .find(|digest| digest.segments.contains(&Number(u64::from(segment))))
            .ok_or_else(|| Rejection::malformed("no digest for the segment"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_deep_and_too_many_are_refused() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(Metadata::parse(deep.as_bytes()).unwrap_err().code(), "metadata-malformed");
        let tokens: Vec<String> = (0..33).map(|i| format!("\"{i}\":{{}}")).collect();
        let many = format!(
            r#"{{"keyslots":{{}},"tokens":{{{}}},"segments":{{}},"digests":{{}},"config":{{"json_size":"12288","keyslots_size":"0"}}}}"#,
            tokens.join(",")
        );
        assert_eq!(Metadata::parse(many.as_bytes()), Err(Rejection::malformed("too many objects")));
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_text_never_panics(text in "[\\[\\]{}:,\"a-z0-9 ]{0,200}") {
            let _ = Metadata::parse(text.as_bytes());
        }
    }
}
