//! The protocol's enumerations: fragments of the XKMS namespace. Most are open, so that a URI of
//! somebody else is kept as it came.

use crate::uri;

macro_rules! closed {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $fragment:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the schema.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The URI.
            #[must_use]
            pub const fn uri(self) -> &'static str {
                match self { $(Self::$variant => concat!("http://www.w3.org/2002/03/xkms#", $fragment),)+ }
            }

            /// The value of a URI.
            #[must_use]
            pub fn from_uri(text: &str) -> Option<Self> {
                match text.trim().strip_prefix(uri::XKMS)? { $($fragment => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

macro_rules! open {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $fragment:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ /** A URI that the schema does not name. */ Other(String) }

        impl $name {
            /// Every value that the schema names, in its order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The URI.
            #[must_use]
            pub fn uri(&self) -> &str {
                match self {
                    $(Self::$variant => concat!("http://www.w3.org/2002/03/xkms#", $fragment),)+
                    Self::Other(text) => text,
                }
            }

            /// The value of a URI.
            #[must_use]
            pub fn from_uri(text: &str) -> Self {
                let text = text.trim();
                match text.strip_prefix(uri::XKMS) {
                    $(Some($fragment) => Self::$variant,)+
                    _ => Self::Other(text.to_owned()),
                }
            }
        }
    };
}

closed! {
    /// What a key may be used for.
    KeyUsage {
        /// Encryption.
        Encryption = "Encryption",
        /// Signing.
        Signature = "Signature",
        /// Key exchange.
        Exchange = "Exchange",
    }
}

closed! {
    /// What is known of a binding.
    StatusValue {
        /// All was checked and good.
        Valid = "Valid",
        /// Something was found bad.
        Invalid = "Invalid",
        /// Something was not checked.
        Indeterminate = "Indeterminate",
    }
}

open! {
    /// What was checked.
    Reason {
        /// A path to a trust anchor.
        IssuerTrust = "IssuerTrust",
        /// Revocation.
        RevocationStatus = "RevocationStatus",
        /// The instant lies in the interval.
        ValidityInterval = "ValidityInterval",
        /// The issuer's signature.
        Signature = "Signature",
    }
}

open! {
    /// How an answer may come.
    Mechanism {
        /// Later, when asked again.
        Pending = "Pending",
        /// After presenting a nonce.
        Represent = "Represent",
        /// With the request's signature value in it.
        RequestSignatureValue = "RequestSignatureValue",
    }
}

open! {
    /// What of a key an answer shall carry.
    RespondWith {
        /// A name.
        KeyName = "KeyName",
        /// The public key.
        KeyValue = "KeyValue",
        /// The certificate.
        X509Cert = "X509Cert",
        /// The certificate and its issuers'.
        X509Chain = "X509Chain",
        /// A revocation list.
        X509Crl = "X509CRL",
        /// Where to find it.
        RetrievalMethod = "RetrievalMethod",
        /// An OpenPGP key.
        Pgp = "PGP",
        /// An OpenPGP key with its certifications.
        PgpWeb = "PGPWeb",
        /// An SPKI key.
        Spki = "SPKI",
        /// The private key.
        PrivateKey = "PrivateKey",
    }
}

open! {
    /// What became of a request.
    Major {
        /// Done.
        Success = "Success",
        /// Another version of the protocol.
        VersionMismatch = "VersionMismatch",
        /// The request is at fault.
        Sender = "Sender",
        /// The service is at fault.
        Receiver = "Receiver",
        /// Nothing done; send it again with the nonce.
        Represent = "Represent",
        /// Taken; ask later.
        Pending = "Pending",
    }
}

open! {
    /// More on what became of a request.
    Minor {
        /// Nothing matches.
        NoMatch = "NoMatch",
        /// More matches than are returned.
        TooManyResponses = "TooManyResponses",
        /// A part only.
        Incomplete = "Incomplete",
        /// It failed.
        Failure = "Failure",
        /// It is refused.
        Refused = "Refused",
        /// Authentication is missing or wrong.
        NoAuthentication = "NoAuthentication",
        /// No such operation here.
        MessageNotSupported = "MessageNotSupported",
        /// No such pending response.
        UnknownResponseId = "UnknownResponseId",
        /// The client must offer to present again.
        RepresentRequired = "RepresentRequired",
        /// Only an answer later is possible, and was not offered.
        NotSynchronous = "NotSynchronous",
        /// An optional element is not supported.
        OptionalElementNotSupported = "OptionalElementNotSupported",
        /// The proof of possession is missing.
        ProofOfPossessionRequired = "ProofOfPossessionRequired",
        /// No answers about another time.
        TimeInstantNotSupported = "TimeInstantNotSupported",
        /// No answers about that time.
        TimeInstantOutOfRange = "TimeInstantOutOfRange",
    }
}
