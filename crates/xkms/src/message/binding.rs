//! Key bindings: a key, what it is for, and what is known of that.

use time::OffsetDateTime;

use super::{Fields, KeyInfo, KeyUsage, MessageRejection, Reason, StatusValue, fields};
use crate::{
    text::to_date_time,
    uri,
    xml::{Element, ElementRef, Sink, Tree},
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

    fn put(&self, to: &mut impl Sink) {
        to.open(uri::XKMS, "Status", &[("StatusValue", Some(self.value.uri()))]);
        let mut reasons = |local, all: &[Reason]| {
            all.iter().for_each(|reason| to.value(uri::XKMS, local, reason.uri()));
        };
        reasons("ValidReason", &self.valid);
        reasons("IndeterminateReason", &self.indeterminate);
        reasons("InvalidReason", &self.invalid);
        to.close();
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

    /// Begins the element.
    fn open(&self, local: &'static str, to: &mut impl Sink) {
        to.open(uri::XKMS, local, &[("Id", self.id.as_deref())]);
        self.key_info.iter().for_each(|info| info.put(to));
        self.usage.iter().for_each(|usage| to.value(uri::XKMS, "KeyUsage", usage.uri()));
        for UseKeyWith { application, identifier } in &self.use_with {
            let attributes =
                [("Application", Some(&**application)), ("Identifier", Some(&**identifier))];
            to.empty(uri::XKMS, "UseKeyWith", &attributes);
        }
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

    fn put(self, to: &mut impl Sink) {
        let from = self.not_before.map(to_date_time);
        let until = self.not_on_or_after.map(to_date_time);
        let attributes = [("NotBefore", from.as_deref()), ("NotOnOrAfter", until.as_deref())];
        to.empty(uri::XKMS, "ValidityInterval", &attributes);
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
        Tree::of(|tree| {
            self.binding.open("QueryKeyBinding", tree);
            if let Some(time) = self.time.map(to_date_time) {
                tree.empty(uri::XKMS, "TimeInstant", &[("Time", Some(&*time))]);
            }
            tree.close();
        })
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

    pub(super) fn put(&self, to: &mut impl Sink) {
        self.binding.open("UnverifiedKeyBinding", to);
        self.validity.into_iter().for_each(|validity| validity.put(to));
        to.close();
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
        Tree::of(|tree| self.put(local, tree))
    }

    pub(super) fn put(&self, local: &'static str, to: &mut impl Sink) {
        self.binding.open(local, to);
        self.validity.into_iter().for_each(|validity| validity.put(to));
        self.status.put(to);
        to.close();
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
        Tree::of(|tree| {
            self.binding.open("PrototypeKeyBinding", tree);
            self.validity.into_iter().for_each(|validity| validity.put(tree));
            if let Some(code) = &self.revocation_code_identifier {
                tree.binary(uri::XKMS, "RevocationCodeIdentifier", code);
            }
            tree.close();
        })
    }
}
