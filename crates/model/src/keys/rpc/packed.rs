//! What is asked most, in octets: JSON takes several times as long, and both ends are one program.
//!
//! Fields follow each other in the order of their types, integers big-endian, lengths in 32 bits.
//! **Invariant:** what is announced costs nothing until it is there.

use super::super::{
    Anchor, Found, IssuerSerial, KeyAspects, KeyBinding, KeyExample, KeyFinding, KeyStatus, KeyUse,
    Knowledge, Query, StatusValue, UseWith, order::AuthenticationKey,
};
use super::{KeyAnswer, KeyRequest};
use crate::api::Bytes;

/// A value that has such a form.
pub(super) trait Packed: Sized {
    /// Appends it.
    fn pack(&self, to: &mut Vec<u8>);
    /// Takes it from the beginning of `from`.
    fn unpack(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($name:ty),*) => {$(
        impl Packed for $name {
            fn pack(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_be_bytes());
            }

            fn unpack(from: &mut &[u8]) -> Option<Self> {
                let (first, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_be_bytes(*first))
            }
        }
    )*};
}

integers!(u8, u32, u64, i64);

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Packed for $name {
            fn pack(&self, to: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.pack(to);)*
            }

            fn unpack(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Packed::unpack(from)?),* })
            }
        }
    )*};
}

structs! {
    Found { bindings, more, knowledge }
    IssuerSerial { issuer, serial }
    KeyAspects { issuer_trust, revocation_status, validity_interval, signature }
    KeyBinding {
        id, key, name, certificates, uses, use_with, not_before, not_on_or_after, status
    }
    KeyExample { key, name, certificates, crls, issuer_serial, uses, use_with }
    KeyStatus { value, aspects, refusal }
    Knowledge { anchor, as_of, pki_calls }
    Query { binding, instant, limit }
    UseWith { application, identifier }
}

macro_rules! words {
    ($($name:ident { $($word:ident = $number:literal),* })*) => {$(
        impl Packed for $name {
            fn pack(&self, to: &mut Vec<u8>) {
                to.push(match self { $(Self::$word => $number),* });
            }

            fn unpack(from: &mut &[u8]) -> Option<Self> {
                match u8::unpack(from)? {
                    $($number => Some(Self::$word),)*
                    _ => None,
                }
            }
        }
    )*};
}

words! {
    KeyFinding { Good = 0, Open = 1, Bad = 2 }
    KeyUse { Encryption = 0, Exchange = 1, Signature = 2 }
    StatusValue { Valid = 0, Invalid = 1, Indeterminate = 2 }
}

impl Packed for bool {
    fn pack(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        match u8::unpack(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

fn pack_length(length: usize, to: &mut Vec<u8>) {
    // What is longer than that is refused as a frame.
    u32::try_from(length).unwrap_or(u32::MAX).pack(to);
}

fn octets<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::unpack(from)?).ok()?;
    let (octets, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(octets)
}

impl Packed for Bytes {
    fn pack(&self, to: &mut Vec<u8>) {
        pack_length(self.0.len(), to);
        to.extend_from_slice(&self.0);
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        octets(from).map(|octets| Self(octets.to_vec()))
    }
}

impl Packed for String {
    fn pack(&self, to: &mut Vec<u8>) {
        pack_length(self.len(), to);
        to.extend_from_slice(self.as_bytes());
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        std::str::from_utf8(octets(from)?).ok().map(str::to_owned)
    }
}

impl<T: Packed> Packed for Option<T> {
    fn pack(&self, to: &mut Vec<u8>) {
        self.is_some().pack(to);
        self.iter().for_each(|value| value.pack(to));
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        if bool::unpack(from)? { T::unpack(from).map(Some) } else { Some(None) }
    }
}

impl<T: Packed> Packed for Vec<T> {
    fn pack(&self, to: &mut Vec<u8>) {
        pack_length(self.len(), to);
        self.iter().for_each(|value| value.pack(to));
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        let count = u32::unpack(from)?;
        (0..count).map(|_| T::unpack(from)).collect()
    }
}

impl Packed for Anchor {
    fn pack(&self, to: &mut Vec<u8>) {
        match self {
            Self::TrustService => to.push(0),
            Self::Ca(name) => {
                to.push(1);
                name.pack(to);
            }
            Self::Bridge { path } => {
                to.push(2);
                path.pack(to);
            }
        }
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        match u8::unpack(from)? {
            0 => Some(Self::TrustService),
            1 => Some(Self::Ca(Packed::unpack(from)?)),
            2 => Some(Self::Bridge { path: Packed::unpack(from)? }),
            _ => None,
        }
    }
}

/// A message that is sent in this form if it is one of those that are asked most. The first octet
/// says which; JSON begins with none of these.
pub(super) trait Often: Sized {
    /// Appends it, if it is one of them.
    fn pack_often(&self, to: &mut Vec<u8>) -> bool;
    /// Takes it from `from`, whose first octet was `tag`.
    fn unpack_often(tag: u8, from: &mut &[u8]) -> Option<Self>;
}

/// The first octets.
const LOCATE: u8 = 1;
const VALIDATE: u8 = 2;
const ASKED_BY: u8 = 3;
const MESSAGE_KEY: u8 = 4;
const FOUND: u8 = 5;
const KEY: u8 = 6;

/// Whether a message begins with one of them.
pub(super) const fn is_tag(first: u8) -> bool {
    first <= KEY
}

fn tagged(tag: u8, value: &impl Packed, to: &mut Vec<u8>) -> bool {
    to.push(tag);
    value.pack(to);
    true
}

fn question(of: &KeyRequest) -> Option<(u8, &Query)> {
    if let KeyRequest::Locate(query) = of {
        Some((LOCATE, query))
    } else if let KeyRequest::Validate(query) = of {
        Some((VALIDATE, query))
    } else {
        None
    }
}

impl Often for KeyRequest {
    fn pack_often(&self, to: &mut Vec<u8>) -> bool {
        if let Some((tag, query)) = question(self) {
            return tagged(tag, query, to);
        }
        if let Self::AskedBy { signer, question: of } = self
            && let Some((tag, query)) = question(of)
        {
            return tagged(ASKED_BY, signer, to) && tagged(tag, query, to);
        }
        if let Self::MessageKey(hint) = self { tagged(MESSAGE_KEY, hint, to) } else { false }
    }

    fn unpack_often(tag: u8, from: &mut &[u8]) -> Option<Self> {
        let asked = |tag, from: &mut &[u8]| match tag {
            LOCATE => Query::unpack(from).map(Self::Locate),
            VALIDATE => Query::unpack(from).map(Self::Validate),
            _ => None,
        };
        match tag {
            ASKED_BY => {
                let signer = Bytes::unpack(from)?;
                let question = Box::new(asked(u8::unpack(from)?, from)?);
                Some(Self::AskedBy { signer, question })
            }
            MESSAGE_KEY => KeyExample::unpack(from).map(Self::MessageKey),
            _ => asked(tag, from),
        }
    }
}

impl Often for KeyAnswer {
    fn pack_often(&self, to: &mut Vec<u8>) -> bool {
        match self {
            Self::Found(found) => tagged(FOUND, found, to),
            Self::Key(None) => tagged(KEY, &None::<Bytes>, to),
            Self::Key(Some(AuthenticationKey::Public(key))) => tagged(KEY, &Some(key.clone()), to),
            Self::Key(Some(AuthenticationKey::Mac(_)))
            | Self::Keys(_)
            | Self::Outcome(_)
            | Self::Collected(_)
            | Self::Progress(_)
            | Self::Published(_)
            | Self::Noted
            | Self::Guest(_)
            | Self::Failed(_) => false,
        }
    }

    fn unpack_often(tag: u8, from: &mut &[u8]) -> Option<Self> {
        match tag {
            FOUND => Found::unpack(from).map(Self::Found),
            KEY => {
                let key: Option<Bytes> = Packed::unpack(from)?;
                Some(Self::Key(key.map(AuthenticationKey::Public)))
            }
            _ => None,
        }
    }
}
