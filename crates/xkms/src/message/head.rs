//! What all requests, and all results, have in common.

use model::keys::Knowledge;

use super::{Fields, Major, Mechanism, MessageRejection, Minor, RespondWith, fields, knowledge};
use crate::{
    text::to_base64,
    uri,
    xml::{Element, ElementRef, Sink, Tree, is_ncname},
};

/// Whether `id` may be the Id of a message.
#[must_use]
pub fn is_id(id: &str) -> bool {
    is_ncname(id) && id.len() <= 256
}

/// The signature over a whole message: its first child, if that is one.
#[must_use]
pub fn signature_of(message: ElementRef<'_>) -> Option<ElementRef<'_>> {
    message.children().next().filter(|first| first.is(uri::DS, "Signature"))
}

/// A wish to be told when the answer is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingNotification {
    /// By what means, for example `urn:ietf:rfc:822`.
    pub mechanism: String,
    /// Where, for example `mailto:a@example.org`.
    pub identifier: String,
}

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The message's Id.
    pub id: String,
    /// The URI of the service it is for.
    pub service: String,
    /// The nonce that is presented.
    pub nonce: Option<Vec<u8>>,
    /// What the service shall return as it is.
    pub opaque: Option<Vec<Vec<u8>>>,
    /// How the answer may come.
    pub mechanisms: Vec<Mechanism>,
    /// What the answer shall carry.
    pub respond_with: Vec<RespondWith>,
    /// Whether the answer shall say what it rests on. Nobody gets that extension unasked: clients
    /// that are made from the WSDL may not know what to do with it.
    pub wants_knowledge: bool,
    /// Whom to tell.
    pub notification: Option<PendingNotification>,
    /// The Id of the request that this one goes on with.
    pub original_request_id: Option<String>,
    /// At most so many bindings; positive.
    pub response_limit: Option<i64>,
}

/// Attributes of every request.
pub(super) const REQUEST: [&str; 5] =
    ["Id", "Service", "Nonce", "OriginalRequestId", "ResponseLimit"];
/// Attributes of every result.
pub(super) const RESULT: [&str; 6] =
    ["Id", "Service", "Nonce", "ResultMajor", "ResultMinor", "RequestId"];

impl RequestHead {
    /// A head with only what is required.
    #[must_use]
    pub fn new(id: &str, service: &str) -> Self {
        Self { id: id.to_owned(), service: service.to_owned(), ..Self::default() }
    }

    /// Whether the client offered `mechanism`.
    #[must_use]
    pub fn offers(&self, mechanism: &Mechanism) -> bool {
        self.mechanisms.contains(mechanism)
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, MessageRejection> {
        fields.optional_of(uri::DS, "Signature");
        let opaque = begin(fields)?;
        let value = |e| fields::characters(e);
        let mechanisms = fields.many("ResponseMechanism");
        let respond_with: Vec<RespondWith> = fields
            .many("RespondWith")
            .into_iter()
            .map(|e| value(e).map(RespondWith::from_uri))
            .collect::<Result<_, _>>()?;
        let (knowledge, respond_with): (Vec<_>, Vec<_>) =
            respond_with.into_iter().partition(|kind| kind.uri() == uri::KNOWLEDGE);
        let notification = fields.optional("PendingNotification").map(notification).transpose()?;
        let response_limit = fields.integer("ResponseLimit")?;
        if response_limit.is_some_and(|limit| limit < 1) {
            return Err(MessageRejection::ResponseLimit);
        }
        Ok(Self {
            id: fields.name("Id")?.ok_or(MessageRejection::Attribute)?,
            service: fields.uri("Service")?,
            nonce: fields.bytes("Nonce")?,
            opaque,
            mechanisms: mechanisms
                .into_iter()
                .map(|e| value(e).map(Mechanism::from_uri))
                .collect::<Result<_, _>>()?,
            respond_with,
            wants_knowledge: !knowledge.is_empty(),
            notification,
            original_request_id: fields.name("OriginalRequestId")?,
            response_limit,
        })
    }

    pub(super) fn element(&self, local: &'static str) -> Element {
        let uri_element = |local, uri: &str| Element::new(uri::XKMS, local).text(uri);
        let notification = self.notification.as_ref().map(|n| {
            Element::new(uri::XKMS, "PendingNotification")
                .with("Mechanism", n.mechanism.as_str())
                .with("Identifier", n.identifier.as_str())
        });
        Element::new(uri::XKMS, local)
            .with("Id", self.id.as_str())
            .with("Service", self.service.as_str())
            .with_some("Nonce", self.nonce.as_deref().map(to_base64))
            .with_some("OriginalRequestId", self.original_request_id.as_deref())
            .with_some("ResponseLimit", self.response_limit.map(|l| l.to_string()))
            .children(self.opaque.as_deref().map(|all| Tree::of(|tree| put_opaque(all, tree))))
            .children(self.mechanisms.iter().map(|m| uri_element("ResponseMechanism", m.uri())))
            .children(self.respond_with.iter().map(|r| uri_element("RespondWith", r.uri())))
            .children(self.wants_knowledge.then(|| uri_element("RespondWith", uri::KNOWLEDGE)))
            .children(notification)
    }
}

/// The head of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultHead {
    /// The message's Id.
    pub id: String,
    /// The URI of the service that answers.
    pub service: String,
    /// The nonce that shall be presented.
    pub nonce: Option<Vec<u8>>,
    /// What the answer rests on, where the service says it.
    pub knowledge: Option<Knowledge>,
    /// What the client wanted back.
    pub opaque: Option<Vec<Vec<u8>>>,
    /// The value of the request's signature, verified.
    pub request_signature: Option<Vec<u8>>,
    /// What became of it.
    pub major: Major,
    /// More on that.
    pub minor: Option<Minor>,
    /// The Id of the request that is answered.
    pub request_id: Option<String>,
}

impl ResultHead {
    /// A head with only what is required.
    #[must_use]
    pub fn new(id: &str, service: &str, major: Major, minor: Option<Minor>) -> Self {
        Self {
            id: id.to_owned(),
            service: service.to_owned(),
            nonce: None,
            knowledge: None,
            opaque: None,
            request_signature: None,
            major,
            minor,
            request_id: None,
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, MessageRejection> {
        fields.optional_of(uri::DS, "Signature");
        let known = fields.optional_of(uri::VOUCHSAFE, "Knowledge");
        let known = known.map(knowledge::read).transpose()?;
        let opaque = begin(fields)?;
        let value = fields.optional("RequestSignatureValue");
        let bytes = |e: ElementRef<'_>| {
            let text = e.text().and_then(crate::text::from_base64);
            text.ok_or(MessageRejection::Value)
        };
        Ok(Self {
            id: fields.name("Id")?.ok_or(MessageRejection::Attribute)?,
            service: fields.uri("Service")?,
            nonce: fields.bytes("Nonce")?,
            knowledge: known,
            opaque,
            request_signature: value.map(bytes).transpose()?,
            major: Major::from_uri(fields.needed("ResultMajor")?),
            minor: fields.attribute("ResultMinor").map(Minor::from_uri),
            request_id: fields.name("RequestId")?,
        })
    }

    /// Begins the result `local`; `own`: attributes that only it has, by name.
    pub(super) fn open<const N: usize>(
        &self,
        local: &'static str,
        own: [(&'static str, Option<&str>); N],
        to: &mut impl Sink,
    ) {
        let nonce = self.nonce.as_deref().map(to_base64);
        let common = [
            ("Id", Some(self.id.as_str())),
            ("Nonce", nonce.as_deref()),
            ("RequestId", self.request_id.as_deref()),
            ("ResultMajor", Some(self.major.uri())),
            ("ResultMinor", self.minor.as_ref().map(Minor::uri)),
            ("Service", Some(self.service.as_str())),
        ];
        if N == 0 {
            to.open(uri::XKMS, local, &common);
        } else {
            to.open(uri::XKMS, local, &[&common[..], &own[..]].concat());
        }
        self.knowledge.iter().for_each(|knowledge| knowledge::put(knowledge, to));
        if let Some(opaque) = &self.opaque {
            put_opaque(opaque, to);
        }
        if let Some(value) = &self.request_signature {
            to.binary(uri::XKMS, "RequestSignatureValue", value);
        }
    }
}

/// Extensions that nobody knows, and opaque data: what follows the signature of every message.
fn begin(fields: &mut Fields<'_>) -> Result<Option<Vec<Vec<u8>>>, MessageRejection> {
    if let Some(next) = fields.peek() {
        let (namespace, local) = next.name();
        if namespace != uri::XKMS && namespace != uri::DS || local == "MessageExtension" {
            return Err(MessageRejection::Extension);
        }
    }
    let Some(opaque) = fields.optional("OpaqueClientData") else { return Ok(None) };
    let mut inner = Fields::of(opaque, &[])?;
    let data = inner.many("OpaqueData").into_iter().map(fields::bytes).collect::<Result<_, _>>()?;
    inner.end()?;
    Ok(Some(data))
}

fn put_opaque(all: &[Vec<u8>], to: &mut impl Sink) {
    to.open(uri::XKMS, "OpaqueClientData", &[]);
    all.iter().for_each(|bytes| to.binary(uri::XKMS, "OpaqueData", bytes));
    to.close();
}

fn notification(element: ElementRef<'_>) -> Result<PendingNotification, MessageRejection> {
    let fields = Fields::of(element, &["Mechanism", "Identifier"])?;
    let mechanism = fields.uri("Mechanism")?;
    let identifier = fields.needed("Identifier")?.to_owned();
    fields.end()?;
    Ok(PendingNotification { mechanism, identifier })
}
