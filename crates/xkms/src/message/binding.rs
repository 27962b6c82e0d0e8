//! Key bindings: a key, what it is for, and what is known of that.

use time::OffsetDateTime;

use super::{Fields, KeyInfo, KeyUsage, MessageRejection, Reason, StatusValue, fields};
use crate::{
    text::{to_base64, to_date_time},
    uri,
    xml::{Element, ElementRef},
};

/// What all key bindings have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The binding's Id in its message.
    pub id: Option<String>,
    /// The key.
    pub key_info: Option<KeyInfo>,
    /// What it may be used for; none says nothing.
    pub usage: Vec<KeyUsage>,
    /// With whom or what it is used.
    pub use_with: Vec<UseKeyWith>,
}

/// An application and the name that the key's owner has in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UseKeyWith {
    /// The application's URI.
    pub application: String,
    /// The owner's name in it.
    pub identifier: String,
}

/// From when, and until before when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValidityInterval {
    /// From.
    pub not_before: Option<OffsetDateTime>,
    /// Until; this instant is outside.
    pub not_on_or_after: Option<OffsetDateTime>,
}

/// A question: which binding is like this?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryKeyBinding {
    /// The example.
    pub binding: Binding,
    /// At which instant; none is now.
    pub time: Option<OffsetDateTime>,
}

/// A binding that nobody vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnverifiedKeyBinding {
    /// The binding.
    pub binding: Binding,
    /// Its interval.
    pub validity: Option<ValidityInterval>,
}

/// A binding and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBinding {
    /// The binding.
    pub binding: Binding,
    /// Its interval.
    pub validity: Option<ValidityInterval>,
    /// What is known.
    pub status: Status,
}

/// A binding that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrototypeKeyBinding {
    /// The binding.
    pub binding: Binding,
    /// The interval wished for.
    pub validity: Option<ValidityInterval>,
    /// By what a revocation code will be known.
    pub revocation_code_identifier: Option<Vec<u8>>,
}

/// What is known of a binding, and from which checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The verdict.
    pub value: StatusValue,
    /// Checked and good.
    pub valid: Vec<Reason>,
    /// Not checked, or without outcome.
    pub indeterminate: Vec<Reason>,
    /// Checked and bad.
    pub invalid: Vec<Reason>,
}

impl Status {
    /// The verdict that follows from checks: anything bad is *Invalid*; only all four of the
    /// schema's reasons good, and nothing left open, is *Valid*; else *Indeterminate*.
    #[must_use]
    pub fn judged(valid: Vec<Reason>, indeterminate: Vec<Reason>, invalid: Vec<Reason>) -> Self {
        let all = Reason::ALL.iter().all(|reason| valid.contains(reason));
        let value = if !invalid.is_empty() {
            StatusValue::Invalid
        } else if indeterminate.is_empty() && all {
            StatusValue::Valid
        } else {
            StatusValue::Indeterminate
        };
        Self { value, valid, indeterminate, invalid }
    }

    /// Nothing checked: what a request says of the binding that it names.
    #[must_use]
    pub fn unknown() -> Self {
        Self::judged(Vec::new(), Vec::new(), Vec::new())
    }

    fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["StatusValue"])?;
        let value = StatusValue::from_uri(fields.needed("StatusValue")?);
        let mut reasons = |local| -> Result<Vec<Reason>, MessageRejection> {
            let all = fields.many(local).into_iter();
            all.map(|e| fields::characters(e).map(Reason::from_uri)).collect()
        };
        let (valid, indeterminate) = (reasons("ValidReason")?, reasons("IndeterminateReason")?);
        let invalid = reasons("InvalidReason")?;
        fields.end()?;
        Ok(Self { value: value.ok_or(MessageRejection::Value)?, valid, indeterminate, invalid })
    }

    fn to_element(&self) -> Element {
        let reasons = |local: &'static str, all: &[Reason]| -> Vec<Element> {
            all.iter().map(|r| Element::new(uri::XKMS, local).text(r.uri())).collect()
        };
        Element::new(uri::XKMS, "Status")
            .with("StatusValue", self.value.uri())
            .children(reasons("ValidReason", &self.valid))
            .children(reasons("IndeterminateReason", &self.indeterminate))
            .children(reasons("InvalidReason", &self.invalid))
    }
}

impl Binding {
    fn read(fields: &mut Fields<'_>) -> Result<Self, MessageRejection> {
        let id = fields.name("Id")?;
        let key_info = fields.optional_of(uri::DS, "KeyInfo").map(KeyInfo::read).transpose()?;
        let usage = fields.many("KeyUsage");
        if usage.len() > 3 {
            return Err(MessageRejection::Element);
        }
        let usage = usage
            .into_iter()
            .map(|e| KeyUsage::from_uri(fields::characters(e)?).ok_or(MessageRejection::Value));
        let usage = usage.collect::<Result<_, _>>()?;
        let use_with = fields.many("UseKeyWith").into_iter().map(use_key_with);
        Ok(Self { id, key_info, usage, use_with: use_with.collect::<Result<_, _>>()? })
    }

    fn element(&self, local: &'static str) -> Element {
        Element::new(uri::XKMS, local)
            .with_some("Id", self.id.as_deref())
            .children(self.key_info.as_ref().map(KeyInfo::to_element))
            .children(self.usage.iter().map(|u| Element::new(uri::XKMS, "KeyUsage").text(u.uri())))
            .children(self.use_with.iter().map(|u| {
                Element::new(uri::XKMS, "UseKeyWith")
                    .with("Application", u.application.as_str())
                    .with("Identifier", u.identifier.as_str())
            }))
    }
}

fn use_key_with(element: ElementRef<'_>) -> Result<UseKeyWith, MessageRejection> {
    let fields = Fields::of(element, &["Application", "Identifier"])?;
    let application = fields.uri("Application")?;
    let identifier = fields.needed("Identifier")?.to_owned();
    fields.end()?;
    Ok(UseKeyWith { application, identifier })
}

impl ValidityInterval {
    /// Whether `instant` lies inside.
    #[must_use]
    pub fn contains(&self, instant: OffsetDateTime) -> bool {
        self.not_before.is_none_or(|from| from <= instant)
            && self.not_on_or_after.is_none_or(|until| instant < until)
    }

    fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let fields = Fields::of(element, &["NotBefore", "NotOnOrAfter"])?;
        let interval = Self {
            not_before: fields.instant("NotBefore")?,
            not_on_or_after: fields.instant("NotOnOrAfter")?,
        };
        fields.end()?;
        Ok(interval)
    }

    fn optional(fields: &mut Fields<'_>) -> Result<Option<Self>, MessageRejection> {
        fields.optional("ValidityInterval").map(Self::read).transpose()
    }

    fn to_element(self) -> Element {
        Element::new(uri::XKMS, "ValidityInterval")
            .with_some("NotBefore", self.not_before.map(to_date_time))
            .with_some("NotOnOrAfter", self.not_on_or_after.map(to_date_time))
    }
}

impl QueryKeyBinding {
    pub(super) fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["Id"])?;
        let binding = Binding::read(&mut fields)?;
        let time = match fields.optional("TimeInstant") {
            None => None,
            Some(element) => {
                let inner = Fields::of(element, &["Time"])?;
                let time = inner.instant("Time")?.ok_or(MessageRejection::Attribute)?;
                inner.end()?;
                Some(time)
            }
        };
        fields.end()?;
        Ok(Self { binding, time })
    }

    /// Writes `QueryKeyBinding`.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let time =
            self.time.map(|t| Element::new(uri::XKMS, "TimeInstant").with("Time", to_date_time(t)));
        self.binding.element("QueryKeyBinding").children(time)
    }
}

impl UnverifiedKeyBinding {
    pub(super) fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["Id"])?;
        let binding = Binding::read(&mut fields)?;
        let validity = ValidityInterval::optional(&mut fields)?;
        fields.end()?;
        Ok(Self { binding, validity })
    }

    pub(super) fn to_element(&self) -> Element {
        let binding = self.binding.element("UnverifiedKeyBinding");
        binding.children(self.validity.map(ValidityInterval::to_element))
    }
}

impl KeyBinding {
    pub(super) fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["Id"])?;
        let binding = Binding::read(&mut fields)?;
        let validity = ValidityInterval::optional(&mut fields)?;
        let status = Status::read(fields.required("Status")?)?;
        fields.end()?;
        Ok(Self { binding, validity, status })
    }

    /// Writes `KeyBinding`, `ReissueKeyBinding`, `RevokeKeyBinding` or `RecoverKeyBinding`: they
    /// are one type under four names.
    #[must_use]
    pub fn to_element(&self, local: &'static str) -> Element {
        let validity = self.validity.map(ValidityInterval::to_element);
        self.binding.element(local).children(validity).child(self.status.to_element())
    }
}

impl PrototypeKeyBinding {
    pub(super) fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["Id"])?;
        let binding = Binding::read(&mut fields)?;
        let validity = ValidityInterval::optional(&mut fields)?;
        let code = fields.optional("RevocationCodeIdentifier").map(fields::bytes).transpose()?;
        fields.end()?;
        Ok(Self { binding, validity, revocation_code_identifier: code })
    }

    /// Writes `PrototypeKeyBinding`.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let code = self
            .revocation_code_identifier
            .as_deref()
            .map(|code| Element::new(uri::XKMS, "RevocationCodeIdentifier").text(to_base64(code)));
        let binding = self.binding.element("PrototypeKeyBinding");
        binding.children(self.validity.map(ValidityInterval::to_element)).children(code)
    }
}
