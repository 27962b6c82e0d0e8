//! The nine requests.

use super::{
    Fields, KeyBinding, MessageRejection, PrototypeKeyBinding, QueryKeyBinding, RequestHead,
    fields, head::REQUEST,
};
use crate::{
    text::to_base64,
    uri,
    xml::{Element, ElementRef},
};

/// At most so many requests in a compound.
pub const MAX_COMPOUND: usize = 64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What all have.
    pub head: RequestHead,
    /// What it asks for.
    pub body: RequestBody,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Which keys are there?
    Locate(QueryKeyBinding),
    /// Which keys are there, and what is known of them?
    Validate(QueryKeyBinding),
    /// Bind this key.
    Register {
        /// The binding wished for.
        prototype: PrototypeKeyBinding,
        /// Who asks.
        authentication: Authentication,
        /// `ds:Signature` over the prototype by the key itself.
        possession: Option<Element>,
    },
    /// Give new credentials for this binding.
    Reissue {
        /// Which.
        binding: KeyBinding,
        /// Who asks.
        authentication: Authentication,
        /// `ds:Signature` over the binding by the key itself.
        possession: Option<Element>,
    },
    /// End this binding.
    Revoke {
        /// Which.
        binding: KeyBinding,
        /// Who asks, or the code.
        proof: RevokeProof,
    },
    /// Give back the private key.
    Recover {
        /// Which.
        binding: KeyBinding,
        /// Who asks.
        authentication: Authentication,
    },
    /// Several requests.
    Compound(Vec<Request>),
    /// The answer that was promised.
    Pending {
        /// Which.
        response_id: String,
    },
    /// How far is it?
    Status {
        /// Which.
        response_id: String,
    },
}

/// The operations by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the words of the protocol")]
pub enum Operation {
    Locate,
    Validate,
    Register,
    Reissue,
    Revoke,
    Recover,
    Compound,
    Pending,
    Status,
}

/// Who asks. Both kinds absent is no authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// `ds:Signature` over the key binding.
    pub key_binding: Option<Element>,
    /// Something that says nothing of the binding.
    pub not_bound: Option<NotBoundAuthentication>,
}

/// Authentication that says nothing of the binding: a password, a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotBoundAuthentication {
    /// Its kind.
    pub protocol: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What entitles to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeProof {
    /// Who asks.
    Authentication(Authentication),
    /// The code whose identifier was registered.
    Code(Vec<u8>),
}

impl Request {
    /// Reads a request of any kind.
    pub fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let (namespace, local) = element.name();
        let name = local.strip_suffix("Request").filter(|_| namespace == uri::XKMS);
        let operation = name.and_then(Operation::from_name).ok_or(MessageRejection::Unknown)?;
        let waits = matches!(operation, Operation::Pending | Operation::Status);
        let mut allowed = REQUEST.to_vec();
        allowed.extend(waits.then_some("ResponseId"));
        let mut fields = Fields::of(element, &allowed)?;
        let head = RequestHead::read(&mut fields)?;
        let body = body(operation, &mut fields)?;
        fields.end()?;
        Ok(Self { head, body })
    }

    /// Which operation it is.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match &self.body {
            RequestBody::Locate(_) => Operation::Locate,
            RequestBody::Validate(_) => Operation::Validate,
            RequestBody::Register { .. } => Operation::Register,
            RequestBody::Reissue { .. } => Operation::Reissue,
            RequestBody::Revoke { .. } => Operation::Revoke,
            RequestBody::Recover { .. } => Operation::Recover,
            RequestBody::Compound(_) => Operation::Compound,
            RequestBody::Pending { .. } => Operation::Pending,
            RequestBody::Status { .. } => Operation::Status,
        }
    }

    /// Writes the request, without a signature over the whole.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let element = self.head.element(self.operation().request_name());
        let possessed = |signature: &Option<Element>| {
            signature.clone().map(|s| Element::new(uri::XKMS, "ProofOfPossession").child(s))
        };
        match &self.body {
            RequestBody::Locate(query) | RequestBody::Validate(query) => {
                element.child(query.to_element())
            }
            RequestBody::Register { prototype, authentication, possession } => element
                .child(prototype.to_element())
                .child(authentication.to_element())
                .children(possessed(possession)),
            RequestBody::Reissue { binding, authentication, possession } => element
                .child(binding.to_element("ReissueKeyBinding"))
                .child(authentication.to_element())
                .children(possessed(possession)),
            RequestBody::Revoke { binding, proof } => {
                let element = element.child(binding.to_element("RevokeKeyBinding"));
                match proof {
                    RevokeProof::Authentication(who) => element.child(who.to_element()),
                    RevokeProof::Code(code) => element
                        .child(Element::new(uri::XKMS, "RevocationCode").text(to_base64(code))),
                }
            }
            RequestBody::Recover { binding, authentication } => element
                .child(binding.to_element("RecoverKeyBinding"))
                .child(authentication.to_element()),
            RequestBody::Compound(all) => element.children(all.iter().map(Self::to_element)),
            RequestBody::Pending { response_id } | RequestBody::Status { response_id } => {
                element.with("ResponseId", response_id.as_str())
            }
        }
    }

    /// The signature by which `element`, this request, is authenticated with its key binding.
    #[must_use]
    pub fn authentication_of(element: ElementRef<'_>) -> Option<ElementRef<'_>> {
        signature_in(element, &["Authentication", "KeyBindingAuthentication"])
    }

    /// The signature by which `element`, this request, proves possession of the key.
    #[must_use]
    pub fn possession_of(element: ElementRef<'_>) -> Option<ElementRef<'_>> {
        signature_in(element, &["ProofOfPossession"])
    }

    /// The key binding that `element`, a request, is about.
    #[must_use]
    pub fn binding_of(element: ElementRef<'_>) -> Option<ElementRef<'_>> {
        let names =
            ["PrototypeKeyBinding", "ReissueKeyBinding", "RevokeKeyBinding", "RecoverKeyBinding"];
        element.children().find(|child| names.iter().any(|name| child.is(uri::XKMS, name)))
    }
}

fn signature_in<'d>(element: ElementRef<'d>, path: &[&str]) -> Option<ElementRef<'d>> {
    let step = |at: ElementRef<'d>, local: &&str| at.children().find(|c| c.is(uri::XKMS, local));
    path.iter().try_fold(element, step)?.children().find(|child| child.is(uri::DS, "Signature"))
}

impl Operation {
    /// All nine.
    pub const ALL: [Self; 9] = [
        Self::Locate,
        Self::Validate,
        Self::Register,
        Self::Reissue,
        Self::Revoke,
        Self::Recover,
        Self::Compound,
        Self::Pending,
        Self::Status,
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.request_name().strip_suffix("Request") == Some(name))
    }

    /// The local name of its request.
    #[must_use]
    pub const fn request_name(self) -> &'static str {
        match self {
            Self::Locate => "LocateRequest",
            Self::Validate => "ValidateRequest",
            Self::Register => "RegisterRequest",
            Self::Reissue => "ReissueRequest",
            Self::Revoke => "RevokeRequest",
            Self::Recover => "RecoverRequest",
            Self::Compound => "CompoundRequest",
            Self::Pending => "PendingRequest",
            Self::Status => "StatusRequest",
        }
    }
}

fn body(operation: Operation, fields: &mut Fields<'_>) -> Result<RequestBody, MessageRejection> {
    let response_id =
        |fields: &Fields<'_>| fields.name("ResponseId")?.ok_or(MessageRejection::Attribute);
    Ok(match operation {
        Operation::Locate => {
            RequestBody::Locate(QueryKeyBinding::read(fields.required("QueryKeyBinding")?)?)
        }
        Operation::Validate => {
            RequestBody::Validate(QueryKeyBinding::read(fields.required("QueryKeyBinding")?)?)
        }
        Operation::Register => RequestBody::Register {
            prototype: PrototypeKeyBinding::read(fields.required("PrototypeKeyBinding")?)?,
            authentication: Authentication::read(fields.required("Authentication")?)?,
            possession: possession(fields)?,
        },
        Operation::Reissue => RequestBody::Reissue {
            binding: KeyBinding::read(fields.required("ReissueKeyBinding")?)?,
            authentication: Authentication::read(fields.required("Authentication")?)?,
            possession: possession(fields)?,
        },
        Operation::Revoke => {
            let binding = KeyBinding::read(fields.required("RevokeKeyBinding")?)?;
            let proof = match fields.optional("Authentication") {
                Some(who) => RevokeProof::Authentication(Authentication::read(who)?),
                None => RevokeProof::Code(fields::bytes(fields.required("RevocationCode")?)?),
            };
            RequestBody::Revoke { binding, proof }
        }
        Operation::Recover => RequestBody::Recover {
            binding: KeyBinding::read(fields.required("RecoverKeyBinding")?)?,
            authentication: Authentication::read(fields.required("Authentication")?)?,
        },
        Operation::Compound => RequestBody::Compound(compound(fields)?),
        Operation::Pending => RequestBody::Pending { response_id: response_id(fields)? },
        Operation::Status => RequestBody::Status { response_id: response_id(fields)? },
    })
}

fn compound(fields: &mut Fields<'_>) -> Result<Vec<Request>, MessageRejection> {
    let all = fields.rest();
    if all.len() > MAX_COMPOUND {
        return Err(MessageRejection::CompoundTooLarge);
    }
    let outer = ["CompoundRequest", "PendingRequest", "StatusRequest"];
    if all.is_empty() || all.iter().any(|e| outer.iter().any(|name| e.is(uri::XKMS, name))) {
        return Err(MessageRejection::Element);
    }
    let read = |e| {
        Request::read(e)
            .map_err(|r| if r == MessageRejection::Unknown { MessageRejection::Element } else { r })
    };
    all.into_iter().map(read).collect()
}

fn possession(fields: &mut Fields<'_>) -> Result<Option<Element>, MessageRejection> {
    fields.optional("ProofOfPossession").map(signature).transpose()
}

/// A copy of the one `ds:Signature` in `element`.
fn signature(element: ElementRef<'_>) -> Result<Element, MessageRejection> {
    let mut inner = Fields::of(element, &[])?;
    let signature = inner.optional_of(uri::DS, "Signature").ok_or(MessageRejection::Element)?;
    inner.end()?;
    Ok(Element::copy_of(signature))
}

impl Authentication {
    fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &[])?;
        let key_binding = fields.optional("KeyBindingAuthentication").map(signature).transpose()?;
        let not_bound = match fields.optional("NotBoundAuthentication") {
            None => None,
            Some(element) => {
                let inner = Fields::of(element, &["Protocol", "Value"])?;
                let protocol = inner.uri("Protocol")?;
                let value = inner.bytes("Value")?.ok_or(MessageRejection::Attribute)?;
                inner.end()?;
                Some(NotBoundAuthentication { protocol, value })
            }
        };
        fields.end()?;
        Ok(Self { key_binding, not_bound })
    }

    fn to_element(&self) -> Element {
        let bound = self
            .key_binding
            .clone()
            .map(|signature| Element::new(uri::XKMS, "KeyBindingAuthentication").child(signature));
        let not_bound = self.not_bound.as_ref().map(|n| {
            Element::new(uri::XKMS, "NotBoundAuthentication")
                .with("Protocol", n.protocol.as_str())
                .with("Value", to_base64(&n.value))
        });
        Element::new(uri::XKMS, "Authentication").children(bound).children(not_bound)
    }
}
