//! Messages of CMP, protected: sealed when they leave, opened when they come (RFC 4210, section
//! 5.1.3; RFC 9481).
//!
//! **Invariant:** an answer is opened only if it is of this transaction, repeats the nonce of the
//! message that it answers, and is protected as ours are: by a MAC under the shared secret, or by a
//! signer with a path to an anchor of this provider.

use aws_lc_rs::rand;
use der::{
    Any, Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _,
    asn1::{AnyRef, BitString, ObjectIdentifier as Oid, OctetString},
};
use rcgen::SigningKey as _;
use time::OffsetDateTime;
use x509_cert::{ext::pkix::name::GeneralName, name::Name, spki::AlgorithmIdentifierOwned};

use super::{
    super::{AnswerRejection, ProviderError},
    CmpCredential,
    password::Password,
    wire::{Header, Message, tag},
};
use crate::{
    Anchors, IssueError, Pool, Terms, Usage,
    ca::CaKey,
    cert::{Cert, generalized},
    dn::Dn,
    path::{Context, Search},
};

/// Longest answer, in bytes, and most certificates beside it.
pub(super) const MAX_ANSWER: usize = 256 << 10;
const MAX_EXTRA: usize = 16;
const ECDSA_WITH_SHA256: Oid = Oid::new_unwrap("1.2.840.10045.4.3.2");

/// How messages are protected, both ways.
#[derive(Debug)]
pub(super) enum Protection {
    Mac(Password),
    Signature { key: CaKey, own: Box<Cert>, chain: Vec<Vec<u8>>, anchors: Anchors },
}

/// The two sides of one transaction.
#[derive(Debug)]
pub(super) struct Channel {
    protection: Protection,
    sender: GeneralName,
    recipient: GeneralName,
}

/// What a message is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    pub(super) transaction: &'a [u8],
    /// Ours.
    pub(super) nonce: &'a [u8],
}

/// What came, opened.
#[derive(Debug)]
pub(super) struct Reply {
    /// The kind of body.
    pub(super) kind: u32,
    /// Its DER.
    pub(super) body: Vec<u8>,
    /// The sender's nonce, for the next message.
    pub(super) nonce: Vec<u8>,
    /// Certificates that came along.
    pub(super) extra: Vec<Vec<u8>>,
}

pub(super) fn encoding(error: der::Error) -> ProviderError {
    ProviderError::Issue(IssueError::Encode(error))
}

/// 16 random bytes.
pub(super) fn nonce() -> Result<Vec<u8>, ProviderError> {
    let mut nonce = vec![0; 16];
    rand::fill(&mut nonce).map_err(|_| ProviderError::Issue(IssueError::Random))?;
    Ok(nonce)
}

impl Channel {
    pub(super) fn new(
        credential: CmpCredential,
        recipient: Option<&[u8]>,
    ) -> Result<Self, IssueError> {
        let parse = |der: &[u8]| Cert::parse(der).map_err(IssueError::CaCertificate);
        let recipient = match recipient {
            Some(der) => parse(der)?.subject_name().clone(),
            None => Name::default(),
        };
        let (protection, sender) = match credential {
            CmpCredential::Secret { reference, secret } => {
                (Protection::Mac(Password::new(reference, secret)), Name::default())
            }
            CmpCredential::Key { certificate, chain, key, anchors } => {
                let own = Box::new(parse(&certificate)?);
                let key = CaKey::from_pkcs8(key.expose())?;
                if own.spki() != key.spki() {
                    return Err(IssueError::CaMismatch);
                }
                let name = own.subject_name().clone();
                (Protection::Signature { key, own, chain, anchors }, name)
            }
        };
        let (sender, recipient) =
            (GeneralName::DirectoryName(sender), GeneralName::DirectoryName(recipient));
        Ok(Self { protection, sender, recipient })
    }

    pub(super) const fn protection(&self) -> &Protection {
        &self.protection
    }

    /// A message of ours, DER; `theirs` is the nonce of the message that it answers.
    pub(super) fn seal(
        &self,
        (kind, body): (u32, Vec<u8>),
        marks: Marks<'_>,
        theirs: Option<&[u8]>,
        now: OffsetDateTime,
    ) -> Result<Vec<u8>, ProviderError> {
        let octets = |bytes: &[u8]| OctetString::new(bytes).map_err(encoding);
        let (algorithm, sender_key) = self.algorithm()?;
        let header = Header {
            version: 2,
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            time: Some(generalized(now).map_err(encoding)?),
            algorithm: Some(algorithm.clone()),
            sender_key: sender_key.map(octets).transpose()?,
            recipient_key: None,
            transaction: Some(octets(marks.transaction)?),
            sender_nonce: Some(octets(marks.nonce)?),
            recipient_nonce: theirs.map(octets).transpose()?,
            text: None,
            info: None,
        };
        let body = Any::new(tag(kind, true), body).map_err(encoding)?;
        let part = [header.to_der(), body.to_der()].into_iter().collect::<der::Result<Vec<_>>>();
        let part = protected(&part.map_err(encoding)?.concat()).map_err(encoding)?;
        let protection = self.protect(&algorithm, &part)?;
        let protection = Some(BitString::from_bytes(&protection).map_err(encoding)?);
        let extra = self.certificates().map_err(encoding)?;
        Message { header, body, protection, extra }.to_der().map_err(encoding)
    }

    /// The algorithm of our next message, and whose key it is.
    fn algorithm(&self) -> Result<(AlgorithmIdentifierOwned, Option<&[u8]>), ProviderError> {
        match &self.protection {
            Protection::Mac(password) => Ok((password.algorithm()?, Some(password.reference()))),
            Protection::Signature { own, .. } => {
                let (oid, parameters) = (ECDSA_WITH_SHA256, None);
                let key = own.ext().subject_key.as_deref();
                Ok((AlgorithmIdentifierOwned { oid, parameters }, key))
            }
        }
    }

    fn protect(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        part: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        match &self.protection {
            Protection::Mac(password) => Ok(password.sign(algorithm, part)?),
            Protection::Signature { key, .. } => {
                key.sign(part).map_err(|error| ProviderError::Issue(IssueError::building(error)))
            }
        }
    }

    fn certificates(&self) -> der::Result<Option<Vec<Any>>> {
        let Protection::Signature { own, chain, .. } = &self.protection else { return Ok(None) };
        let all = std::iter::once(own.der()).chain(chain.iter().map(Vec::as_slice));
        all.map(Any::from_der).collect::<der::Result<Vec<_>>>().map(Some)
    }

    /// Opens the answer to the message that had these marks.
    pub(super) fn open(
        &self,
        der: &[u8],
        marks: Marks<'_>,
        now: OffsetDateTime,
    ) -> Result<Reply, AnswerRejection> {
        if der.len() > MAX_ANSWER {
            return Err(AnswerRejection::TooLarge);
        }
        let message = Message::from_der(der).map_err(|_| AnswerRejection::Malformed)?;
        let extra = message.extra.as_deref().unwrap_or_default();
        if extra.len() > MAX_EXTRA {
            return Err(AnswerRejection::TooLarge);
        }
        let extra = extra.iter().map(der::Encode::to_der).collect::<der::Result<Vec<_>>>();
        let extra = extra.map_err(|_| AnswerRejection::Malformed)?;
        let part = signed(der).map_err(|_| AnswerRejection::Malformed)?;
        self.verify(&message, &part, &extra, now)?;
        let Message { header, body, .. } = &message;
        let is = |field: &Option<OctetString>, wanted: &[u8]| {
            field.as_ref().is_some_and(|field| field.as_bytes() == wanted)
        };
        if !(2..=3).contains(&header.version) {
            return Err(AnswerRejection::Malformed);
        }
        if !is(&header.transaction, marks.transaction) {
            return Err(AnswerRejection::Transaction);
        }
        if !is(&header.recipient_nonce, marks.nonce) {
            return Err(AnswerRejection::Nonce);
        }
        let nonce = header.sender_nonce.as_ref().ok_or(AnswerRejection::Nonce)?;
        if !(8..=64).contains(&nonce.as_bytes().len()) {
            return Err(AnswerRejection::Nonce);
        }
        let Tag::ContextSpecific { constructed: true, number } = body.tag() else {
            return Err(AnswerRejection::Malformed);
        };
        let nonce = nonce.as_bytes().to_vec();
        Ok(Reply { kind: number.value(), body: body.value().to_vec(), nonce, extra })
    }

    fn verify(
        &self,
        message: &Message,
        part: &[u8],
        extra: &[Vec<u8>],
        now: OffsetDateTime,
    ) -> Result<(), AnswerRejection> {
        let protection = message.protection.as_ref().and_then(BitString::as_bytes);
        let (Some(algorithm), Some(protection)) = (&message.header.algorithm, protection) else {
            return Err(AnswerRejection::Protection);
        };
        match &self.protection {
            Protection::Mac(password) => password.verify(algorithm, (part, protection)),
            Protection::Signature { anchors, .. } => {
                let signer = signer(&message.header, extra)?;
                let signed = signer.verify(algorithm, part, protection);
                signed.map_err(|_| AnswerRejection::Protection)?;
                proven(&signer, extra, anchors, now)
            }
        }
    }
}

/// The certificate, among those that came along, of the one that the message says it is from.
fn signer(header: &Header, extra: &[Vec<u8>]) -> Result<Cert, AnswerRejection> {
    let GeneralName::DirectoryName(name) = &header.sender else {
        return Err(AnswerRejection::Signer);
    };
    let name = Dn::new(name).map_err(|_| AnswerRejection::Malformed)?;
    let key = header.sender_key.as_ref().map(OctetString::as_bytes);
    let fits = |cert: &Cert| {
        let own = cert.ext().subject_key.as_deref();
        *cert.subject() == name && (key.is_none() || own.is_none() || key == own)
    };
    let mut all = extra.iter().filter_map(|der| Cert::parse(der).ok());
    all.find(fits).ok_or(AnswerRejection::Signer)
}

fn proven(
    signer: &Cert,
    extra: &[Vec<u8>],
    anchors: &Anchors,
    now: OffsetDateTime,
) -> Result<(), AnswerRejection> {
    if signer.ext().key_usage.is_some_and(|usage| !usage.digital_signature()) {
        return Err(AnswerRejection::Signer);
    }
    let pool = Pool::new(extra).map_err(|_| AnswerRejection::Signer)?;
    let terms = Terms::new(now, Usage::Any);
    let context = Context { pool: &pool, anchors, evidence: None, terms: &terms };
    let found = Search::new(&context).run(signer, Usage::Any, true);
    found.map(drop).map_err(|_| AnswerRejection::Signer)
}

/// ProtectedPart of header and body, both DER.
fn protected(content: &[u8]) -> der::Result<Vec<u8>> {
    Any::new(Tag::Sequence, content)?.to_der()
}

/// What the protection of a message that came is over, exactly as it came.
fn signed(der: &[u8]) -> der::Result<Vec<u8>> {
    let outer = AnyRef::from_der(der)?;
    let mut reader = SliceReader::new(outer.value())?;
    protected(&[reader.tlv_bytes()?, reader.tlv_bytes()?].concat())
}
