//! Verification, and the proof it leaves behind.

use super::{SignatureAlgorithm, SignaturePolicy, SignatureRejection, VerifyingKey, parse};
use crate::{
    c14n::{Context, canonicalize},
    xml::ElementRef,
};

/// What is about to be processed, and where.
#[derive(Clone, Copy, Debug)]
pub struct Place<'d> {
    /// The XKMS message, wherever it stands in the document.
    pub message: ElementRef<'d>,
    /// The element that the caller will process: the message, or a key binding in it.
    pub target: ElementRef<'d>,
}

/// In which form of the message a signature verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it stands in its envelope.
    InPlace,
    /// Taken out of its envelope: it was signed inclusively before it was wrapped.
    Detached,
}

/// An element that a signature was verified over. Only [`verify`] makes it.
#[derive(Clone, Debug)]
pub struct SignedElement<'d> {
    element: ElementRef<'d>,
    value: Vec<u8>,
    algorithm: SignatureAlgorithm,
    form: Form,
}

impl<'d> SignedElement<'d> {
    /// The signed element itself.
    #[must_use]
    pub const fn element(&self) -> ElementRef<'d> {
        self.element
    }

    /// The verified signature value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Reads a value from the signed element, and from nothing else.
    pub fn read<T, E>(
        self,
        read: impl FnOnce(ElementRef<'d>) -> Result<T, E>,
    ) -> Result<Signed<T>, E> {
        let value = read(self.element)?;
        Ok(Signed { value, signature: self.value, algorithm: self.algorithm, form: self.form })
    }
}

/// A value that was read from the very element that a signature covers.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    value: T,
    signature: Vec<u8>,
    algorithm: SignatureAlgorithm,
    form: Form,
}

impl<T> Signed<T> {
    /// The value.
    pub const fn get(&self) -> &T {
        &self.value
    }

    /// The value, without the proof.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The verified signature value.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The algorithm it verified by.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The form of the message it verified in.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }
}

/// Verifies that `signature` covers `place.target`, by `key`.
///
/// The reference must resolve to that very element. A signature inside of what it signs must be its
/// child and say so by its transforms; any other signature must not. The form in place counts
/// first; the detached one only where an inclusive canonicalisation makes the two differ.
pub fn verify<'d>(
    signature: ElementRef<'d>,
    place: Place<'d>,
    key: VerifyingKey<'_>,
    policy: SignaturePolicy,
) -> Result<SignedElement<'d>, SignatureRejection> {
    let parts = parse::parts(signature)?;
    if !policy.accepts(parts.algorithm, parts.reference.digest) {
        return Err(SignatureRejection::Algorithm);
    }
    let Place { message, target } = place;
    let resolved = signature.document.by_id(parts.reference.id);
    let resolved = resolved.ok_or(SignatureRejection::ReferenceUnresolved)?;
    if resolved != target || !message.contains(target) || !message.contains(signature) {
        return Err(SignatureRejection::ReferenceElsewhere);
    }
    let inside = target.contains(signature);
    if inside != parts.reference.enveloped || (inside && signature.parent() != Some(target)) {
        return Err(SignatureRejection::Enveloping);
    }
    let found = |form| {
        let context = match form {
            Form::InPlace => Context::InPlace,
            Form::Detached => Context::Detached(message),
        };
        check(&parts, signature, target, key, context).map(|()| SignedElement {
            element: target,
            value: parts.value.clone(),
            algorithm: parts.algorithm,
            form,
        })
    };
    let inclusive = parts.method.exclusive.is_none() || parts.reference.method.exclusive.is_none();
    let wrapped = message.parent().is_some();
    match found(Form::InPlace) {
        Err(SignatureRejection::Digest | SignatureRejection::Value) if inclusive && wrapped => {
            found(Form::Detached)
        }
        outcome => outcome,
    }
}

fn check(
    parts: &parse::Parts<'_>,
    signature: ElementRef<'_>,
    target: ElementRef<'_>,
    key: VerifyingKey<'_>,
    context: Context<'_>,
) -> Result<(), SignatureRejection> {
    let reference = &parts.reference;
    let without = reference.enveloped.then_some(signature);
    let form = canonicalize(target, without, &reference.method, context);
    let form = form.ok_or(SignatureRejection::Digest)?;
    if reference.digest.of(form.as_bytes()).as_ref() != reference.value {
        return Err(SignatureRejection::Digest);
    }
    let form = canonicalize(parts.signed_info, None, &parts.method, context);
    let form = form.ok_or(SignatureRejection::Value)?;
    key.verify(parts.algorithm, form.as_bytes(), &parts.value)
}
