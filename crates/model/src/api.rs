//! What goes over HTTPS between an authority, its hosts and its operators. Every structure refuses
//! unknown fields. Binary values are standard base64 ([`Bytes`]); times are Unix milliseconds.
//!
//! | who | how it is known | routes |
//! |---|---|---|
//! | anyone | the server's certificate only | `POST /v1/hosts/enrol`, `POST /v1/hosts/enrol/{id}`, `POST /v1/challenges`, `POST /v1/hosts/{host}/attest`, `GET /v1/crl`, `GET /v1/openapi.json` |
//! | a host | session certificate, issued with a fresh good verdict | `GET /v1/orders`, `POST /v1/operations/{id}`, `POST /v1/vms/{vm}/grant`, `/key`, `/vtpm`, `/evidence`, `/report`, `/anchor`, `POST /v1/audit`, `POST /v1/services/certify`, `GET /v1/hosts/{host}/standing`; a challenge for a guest |
//! | an operator | client certificate | all others |
//!
//! `docs/api/openapi.json` describes every operation; `docs/protocols/authority.md` says how they
//! belong together and what each refusal means.

pub mod anchor;
pub mod audit;
pub mod duplication;
pub mod enrol;
pub mod grant;
pub mod operate;
pub mod policy;
mod schema;
pub mod service;
pub mod vm;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// Bytes that travel as standard base64 with padding.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(value: Vec<u8>) -> Self {
        Self(value)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Base64)
    }
}

/// Decodes where the text stands, without a copy of it.
struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes in base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).map(Bytes).map_err(E::custom)
    }
}
