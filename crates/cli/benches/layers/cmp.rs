//! The other end of CMP (RFC 4210): reads initialisation, certification and revocation requests, and
//! answers them, protected by the password-based MAC that the request was protected with.
//!
//! `openssl cmp` has a server too, but it hands out one certificate for whoever asks; here each request
//! gets one of its own.

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};

use super::der::{Tlv, all, first, tlv};

const SEQUENCE: u8 = 0x30;
const SHA256_ID: [u8; 9] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const HMAC_SHA256_ID: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What a request asks for.
#[derive(Debug)]
pub enum Asked {
    /// A certificate for this key (SubjectPublicKeyInfo) under this name.
    Certificate { name: String, spki: Vec<u8> },
    /// That this serial number is revoked.
    Revocation { serial: Vec<u8> },
    /// The certificate has come.
    Confirmation,
}

/// A request whose protection is good.
#[derive(Debug)]
pub struct Request {
    pub asked: Asked,
    kind: u8,
    id: Vec<u8>,
    fields: Vec<(u8, Vec<u8>)>,
    key: hmac::Key,
}

/// Opens a message that is protected with `secret`; why it is none, otherwise.
pub fn open(message: &[u8], secret: &[u8]) -> Result<Request, &'static str> {
    let parts = first(message).and_then(|(whole, _)| whole.parts()).ok_or("no message")?;
    let [header, body, rest @ ..] = parts.as_slice() else { return Err("no header and body") };
    // After version, sender and recipient, whose tags are others' too.
    let fields = header.parts().ok_or("the header")?.split_off(3);
    let field = |tag: u8| fields.iter().find(|one| one.tag == tag).and_then(|one| one.only());
    let key = field(0xa1).and_then(|one| mac_key(one, secret)).ok_or("the MAC's algorithm")?;
    let mac = rest.iter().find(|one| one.tag == 0xa0).and_then(|one| one.only()).ok_or("no MAC")?;
    let signed = tlv(SEQUENCE, &[header.whole, body.whole]);
    let mac = mac.content.get(1..).ok_or("no MAC")?;
    hmac::verify(&key, &signed, mac).map_err(|_| "the MAC")?;
    let content = body.only().ok_or("an empty body")?;
    let kind = body.tag & 0x1f;
    let (asked, id) = match kind {
        0 | 2 => enrolment(content).ok_or("the request")?,
        11 => (revocation(content).ok_or("the revocation")?, Vec::new()),
        24 => (Asked::Confirmation, Vec::new()),
        _ => return Err("a kind of request that is not known here"),
    };
    let fields = fields.iter().map(|one| (one.tag, one.whole.to_vec())).collect();
    Ok(Request { asked, kind, id, fields, key })
}

/// The key that a secret and the parameters of PasswordBasedMac lead to.
fn mac_key(algorithm: Tlv<'_>, secret: &[u8]) -> Option<hmac::Key> {
    let parts = algorithm.parts()?;
    let parameters = parts.get(1)?.parts()?;
    let [salt, owf, iterations, mac] = parameters.as_slice() else { return None };
    let is = |one: &Tlv<'_>, id: &[u8]| one.only().is_some_and(|found| found.content == id);
    if !is(owf, &SHA256_ID) {
        return None;
    }
    let count = iterations.content.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let mut key = digest(&SHA256, &[secret, salt.content].concat());
    for _ in 1..count.min(100_000) {
        key = digest(&SHA256, key.as_ref());
    }
    let sha256 = is(mac, &HMAC_SHA256_ID);
    let algorithm = if sha256 { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY };
    Some(hmac::Key::new(algorithm, key.as_ref()))
}

/// CertReqMessages with one request, whose possession is proven by its key or by a registration
/// authority's word.
fn enrolment(messages: Tlv<'_>) -> Option<(Asked, Vec<u8>)> {
    let message = messages.only()?.parts()?;
    let [request, possession, ..] = message.as_slice() else { return None };
    let parts = request.parts()?;
    let [id, template, ..] = parts.as_slice() else { return None };
    let template = template.parts()?;
    let part = |tag: u8| template.iter().find(|one| one.tag == tag);
    let spki = tlv(SEQUENCE, &[part(0xa6)?.content]);
    let name = common_name(part(0xa5)?.only()?)?;
    // 0: raVerified; 1: a signature over the request.
    if possession.tag == 0xa1 {
        let signature = possession.parts()?.last()?.content.get(1..)?;
        let point = first(&spki)?.0.parts()?.last()?.content.get(1..)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        key.verify(request.whole, signature).ok()?;
    }
    Some((Asked::Certificate { name, spki }, id.whole.to_vec()))
}

fn common_name(name: Tlv<'_>) -> Option<String> {
    let attributes = name.parts()?.into_iter().filter_map(Tlv::only);
    let mut pairs = attributes.filter_map(Tlv::parts);
    let pair = pairs.find(|pair| pair.first().is_some_and(|id| id.content == COMMON_NAME))?;
    String::from_utf8(pair.get(1)?.content.to_vec()).ok()
}

fn revocation(details: Tlv<'_>) -> Option<Asked> {
    let template = details.only()?.parts()?.first()?.parts()?;
    let serial = template.iter().find(|one| one.tag == 0x81)?;
    Some(Asked::Revocation { serial: serial.content.to_vec() })
}

impl Request {
    /// The answer that it was done; with the certificate, if one was asked for.
    pub fn answer(&self, certificate: Option<&[u8]>) -> Vec<u8> {
        let accepted = tlv(SEQUENCE, &[&[2, 1, 0]]);
        let (kind, content) = match (&self.asked, certificate) {
            (Asked::Certificate { .. }, Some(der)) => {
                let pair = tlv(SEQUENCE, &[&tlv(0xa0, &[der])]);
                let response = tlv(SEQUENCE, &[&self.id, &accepted, &pair]);
                (self.kind + 1, tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&response])]))
            }
            (Asked::Revocation { .. }, _) => (12, tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&accepted])])),
            (Asked::Certificate { .. } | Asked::Confirmation, _) => (19, vec![5, 0]),
        };
        self.seal(kind, &content)
    }

    fn seal(&self, kind: u8, content: &[u8]) -> Vec<u8> {
        let of = |tag: u8| {
            let found = self.fields.iter().find(|(one, _)| *one == tag);
            found.map(|(_, whole)| whole.clone()).unwrap_or_default()
        };
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).expect("randomness");
        let theirs = all(&of(0xa5)).and_then(|one| Some(one.first()?.content.to_vec()));
        // Nobody in particular to nobody in particular: the MAC says who it is.
        let nobody = tlv(0xa4, &[&tlv(SEQUENCE, &[])]);
        let header = tlv(
            SEQUENCE,
            &[
                &[2, 1, 2],
                &nobody,
                &nobody,
                &of(0xa1),
                &of(0xa2),
                &of(0xa4),
                &tlv(0xa5, &[&tlv(4, &[&nonce])]),
                &tlv(0xa6, &[&theirs.unwrap_or_default()]),
            ],
        );
        let body = tlv(0xa0 | kind, &[content]);
        let mac = hmac::sign(&self.key, &tlv(SEQUENCE, &[&header, &body]));
        let protection = tlv(0xa0, &[&tlv(3, &[&[0], mac.as_ref()])]);
        tlv(SEQUENCE, &[&header, &body, &protection])
    }
}
