//! The nine results.

use super::{
    Fields, KeyBinding, MAX_COMPOUND, MessageRejection, ResultHead, UnverifiedKeyBinding,
    head::RESULT,
};
use crate::{
    uri,
    xenc::EncryptedData,
    xml::{Element, ElementRef, Sink, Text, Tree},
};

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What all have.
    pub head: ResultHead,
    /// What was found or done.
    pub body: AnswerBody,
}

/// What was found or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    /// Nothing in particular.
    Result,
    /// Keys that nobody vouches for.
    Locate(Vec<UnverifiedKeyBinding>),
    /// Keys and what is known of them.
    Validate(Vec<KeyBinding>),
    /// Bindings made.
    Register(Vec<KeyBinding>, Option<EncryptedData>),
    /// Bindings renewed.
    Reissue(Vec<KeyBinding>),
    /// Bindings ended.
    Revoke(Vec<KeyBinding>),
    /// Keys given back.
    Recover(Vec<KeyBinding>, Option<EncryptedData>),
    /// One result a request.
    Compound(Vec<Answer>),
    /// How far it is.
    Status(Counts),
}

/// How many requests of a pending compound are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Done.
    pub success: Option<i64>,
    /// Failed.
    pub failure: Option<i64>,
    /// Not done.
    pub pending: Option<i64>,
}

impl Answer {
    /// Reads a result of any kind.
    pub fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let (namespace, local) = element.name();
        if namespace != uri::XKMS || !local.ends_with("Result") {
            return Err(MessageRejection::Unknown);
        }
        let mut allowed = RESULT.to_vec();
        if local == "StatusResult" {
            allowed.extend(["Success", "Failure", "Pending"]);
        }
        let mut fields = Fields::of(element, &allowed)?;
        let head = ResultHead::read(&mut fields)?;
        let body = match local {
            "Result" => AnswerBody::Result,
            "LocateResult" => {
                let all = fields.many("UnverifiedKeyBinding").into_iter();
                AnswerBody::Locate(all.map(UnverifiedKeyBinding::read).collect::<Result<_, _>>()?)
            }
            "ValidateResult" => AnswerBody::Validate(bindings(&mut fields)?),
            "RegisterResult" => {
                AnswerBody::Register(bindings(&mut fields)?, private_key(&mut fields)?)
            }
            "ReissueResult" => AnswerBody::Reissue(bindings(&mut fields)?),
            "RevokeResult" => AnswerBody::Revoke(bindings(&mut fields)?),
            "RecoverResult" => {
                AnswerBody::Recover(bindings(&mut fields)?, private_key(&mut fields)?)
            }
            "CompoundResult" => AnswerBody::Compound(compound(&mut fields)?),
            "StatusResult" => AnswerBody::Status(Counts {
                success: fields.integer("Success")?,
                failure: fields.integer("Failure")?,
                pending: fields.integer("Pending")?,
            }),
            _ => return Err(MessageRejection::Unknown),
        };
        fields.end()?;
        Ok(Self { head, body })
    }

    /// Writes the result, without a signature.
    #[must_use]
    pub fn to_element(&self) -> Element {
        Tree::of(|tree| self.put(tree))
    }

    /// The text of [`Answer::to_element`], without that tree.
    #[must_use]
    pub fn to_xml(&self) -> String {
        self.to_xml_with_content().0
    }

    /// The same, and where in it the content begins.
    pub(crate) fn to_xml_with_content(&self) -> (String, usize) {
        Text::of(|text| self.put(text)).into_parts()
    }

    fn put<S: Sink>(&self, to: &mut S) {
        let local = self.body.name();
        if let AnswerBody::Status(counts) = &self.body {
            let text = |count: Option<i64>| count.map(|count| count.to_string());
            let (done, failed) = (text(counts.success), text(counts.failure));
            let pending = text(counts.pending);
            let counts = [
                ("Success", done.as_deref()),
                ("Failure", failed.as_deref()),
                ("Pending", pending.as_deref()),
            ];
            self.head.open(local, counts, to);
        } else {
            self.head.open(local, [], to);
        }
        match &self.body {
            AnswerBody::Result | AnswerBody::Status(_) => {}
            AnswerBody::Locate(all) => all.iter().for_each(|binding| binding.put(to)),
            AnswerBody::Validate(all) | AnswerBody::Reissue(all) | AnswerBody::Revoke(all) => {
                all.iter().for_each(|binding| binding.put("KeyBinding", to));
            }
            AnswerBody::Register(all, key) | AnswerBody::Recover(all, key) => {
                all.iter().for_each(|binding| binding.put("KeyBinding", to));
                if let Some(key) = key {
                    to.open(uri::XKMS, "PrivateKey", &[]);
                    to.element(&key.to_element());
                    to.close();
                }
            }
            AnswerBody::Compound(all) => all.iter().for_each(|answer| answer.put(to)),
        }
        to.close();
    }
}

impl AnswerBody {
    /// The local name of the result.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Result => "Result",
            Self::Locate(_) => "LocateResult",
            Self::Validate(_) => "ValidateResult",
            Self::Register(..) => "RegisterResult",
            Self::Reissue(_) => "ReissueResult",
            Self::Revoke(_) => "RevokeResult",
            Self::Recover(..) => "RecoverResult",
            Self::Compound(_) => "CompoundResult",
            Self::Status(_) => "StatusResult",
        }
    }
}

fn bindings(fields: &mut Fields<'_>) -> Result<Vec<KeyBinding>, MessageRejection> {
    fields.many("KeyBinding").into_iter().map(KeyBinding::read).collect()
}

fn private_key(fields: &mut Fields<'_>) -> Result<Option<EncryptedData>, MessageRejection> {
    let Some(element) = fields.optional("PrivateKey") else { return Ok(None) };
    let mut inner = Fields::of(element, &[])?;
    let data = inner.optional_of(uri::XENC, "EncryptedData").ok_or(MessageRejection::Element)?;
    inner.end()?;
    EncryptedData::read(data).map(Some).map_err(|_| MessageRejection::Value)
}

fn compound(fields: &mut Fields<'_>) -> Result<Vec<Answer>, MessageRejection> {
    let all = fields.rest();
    if all.len() > MAX_COMPOUND {
        return Err(MessageRejection::CompoundTooLarge);
    }
    let outer = ["Result", "CompoundResult", "StatusResult"];
    if all.iter().any(|e| outer.iter().any(|name| e.is(uri::XKMS, name))) {
        return Err(MessageRejection::Element);
    }
    all.into_iter().map(Answer::read).collect()
}
