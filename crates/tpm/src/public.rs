//! Public areas (TPMT_PUBLIC) and Names. The bytes are kept as they came, since the Name is their
//! digest; everything that is decided on is parsed from them.

mod area;
mod spki;

pub(crate) use self::spki::two_integers;

use std::fmt;

use model::HashAlg;

pub(crate) use self::area::padded;
pub use self::{
    area::{Key, Scheme},
    spki::VerifyingKey,
};
use crate::{
    crypt,
    error::Malformed,
    wire::{Reader, Writer},
};

/// The largest TPMT_PUBLIC that is accepted.
const MAX_PUBLIC: usize = 1024;

/// Object attributes (TPMA_OBJECT, part 2 section 8.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes(pub u32);

impl Attributes {
    /// Cannot leave its TPM.
    pub const FIXED_TPM: Self = Self(0x0002);
    /// Cannot leave its parent.
    pub const FIXED_PARENT: Self = Self(0x0010);
    /// The TPM generated the secret.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(0x0020);
    /// The user role may use the authValue.
    pub const USER_WITH_AUTH: Self = Self(0x0040);
    /// The admin role needs the policy.
    pub const ADMIN_WITH_POLICY: Self = Self(0x0080);
    /// Failures do not count for dictionary-attack lockout.
    pub const NO_DA: Self = Self(0x0400);
    /// Is duplicated only with an inner wrapper, and never in the clear.
    pub const ENCRYPTED_DUPLICATION: Self = Self(0x0800);
    /// Signs only what the TPM made itself, or wraps only TPM objects.
    pub const RESTRICTED: Self = Self(0x0001_0000);
    /// Decrypts.
    pub const DECRYPT: Self = Self(0x0002_0000);
    /// Signs (or encrypts, for symmetric keys).
    pub const SIGN: Self = Self(0x0004_0000);

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes(0x{:08x})", self.0)
    }
}

/// The Name of a TPM entity: algorithm and digest of its public area, or a handle.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// A Name from its bytes (at most 66).
    ///
    /// # Errors
    /// [`Malformed::TooLong`].
    pub fn new(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > 66 {
            return Err(Malformed::TooLong);
        }
        Ok(Self(bytes.to_vec()))
    }

    pub(crate) fn of_handle(handle: u32) -> Self {
        Self(handle.to_be_bytes().to_vec())
    }

    pub(crate) fn of_area(alg: HashAlg, area: &[u8]) -> Self {
        let mut name = alg.tpm_id().to_be_bytes().to_vec();
        name.extend_from_slice(crypt::hash(alg, &[area]).as_bytes());
        Self(name)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// A parsed public area. Equal if the bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct Public {
    bytes: Vec<u8>,
    name_alg: HashAlg,
    attributes: Attributes,
    policy: Vec<u8>,
    key: Key,
}

impl Public {
    /// Parses a TPMT_PUBLIC, exactly.
    ///
    /// # Errors
    /// [`Malformed`], also for algorithms that are not supported.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_PUBLIC {
            return Err(Malformed::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        let name_alg = reader.u16()?;
        let name_alg = HashAlg::from_tpm_id(name_alg)
            .ok_or(Malformed::Unsupported { what: "nameAlg", value: name_alg.into() })?;
        let attributes = Attributes(reader.u32()?);
        let policy = reader.sized(64)?.to_vec();
        if !policy.is_empty() && policy.len() != name_alg.size() {
            return Err(Malformed::Value { what: "authPolicy" });
        }
        let key = Key::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(Self { bytes: bytes.to_vec(), name_alg, attributes, policy, key })
    }

    /// The public area of a software signing key (ECDSA or RSASSA with SHA-256), as an approver of
    /// policies has it: loadable, in no TPM, without attributes but userWithAuth and sign.
    ///
    /// # Errors
    /// [`Malformed`] for a modulus of another size than 2048, 3072 or 4096 bits.
    pub fn signing_key(key: &VerifyingKey) -> Result<Self, Malformed> {
        let mut writer = Writer::small();
        let attributes = Attributes::USER_WITH_AUTH.and(Attributes::SIGN);
        match key {
            VerifyingKey::P256 { x, y } => {
                writer.u16(0x0023).u16(0x000b).u32(attributes.0).u16(0).u16(0x0010);
                writer.u16(0x0018).u16(0x000b).u16(0x0003).u16(0x0010).sized(x).sized(y);
            }
            VerifyingKey::Rsa { modulus, exponent } => {
                let bits = modulus.len().saturating_mul(8);
                let bits = u16::try_from(bits).map_err(|_| Malformed::TooLong)?;
                let exponent = if *exponent == 65_537 { 0 } else { *exponent };
                writer.u16(0x0001).u16(0x000b).u32(attributes.0).u16(0).u16(0x0010);
                writer.u16(0x0014).u16(0x000b).u16(bits).u32(exponent).sized(modulus);
            }
        }
        Self::parse(&writer.finish_public().map_err(|_| Malformed::TooLong)?)
    }

    /// Parses a TPM2B_PUBLIC (as `tpm2-tools` write them), exactly.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse_sized(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let area = reader.sized(MAX_PUBLIC)?;
        reader.finish()?;
        Self::parse(area)
    }

    /// The TPMT_PUBLIC.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The TPM2B_PUBLIC.
    #[must_use]
    pub fn to_sized(&self) -> Vec<u8> {
        let length = u16::try_from(self.bytes.len()).unwrap_or(0);
        [&length.to_be_bytes()[..], &self.bytes].concat()
    }

    /// The Name: what other structures know this object by.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of_area(self.name_alg, &self.bytes)
    }

    /// The algorithm of the Name and of policies.
    #[must_use]
    pub const fn name_alg(&self) -> HashAlg {
        self.name_alg
    }

    /// The attributes.
    #[must_use]
    pub const fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// authPolicy; empty if there is none.
    #[must_use]
    pub fn policy(&self) -> &[u8] {
        &self.policy
    }

    /// Type, parameters and unique field.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The SubjectPublicKeyInfo (DER) of an EC P-256 or RSA key.
    ///
    /// # Errors
    /// [`Malformed::Unsupported`] for other keys.
    pub fn spki_der(&self) -> Result<Vec<u8>, Malformed> {
        Ok(self.verifying_key()?.spki_der())
    }

    /// The public key, without its TPM attributes.
    ///
    /// # Errors
    /// [`Malformed::Unsupported`] for other keys than EC P-256 and RSA.
    pub fn verifying_key(&self) -> Result<VerifyingKey, Malformed> {
        match &self.key {
            Key::Ecc { x, y, .. } => Ok(VerifyingKey::P256 { x: *x, y: *y }),
            Key::Rsa { modulus, exponent, .. } => {
                Ok(VerifyingKey::Rsa { modulus: modulus.clone(), exponent: *exponent })
            }
            Key::KeyedHash { .. } | Key::Symmetric => {
                Err(Malformed::Unsupported { what: "public key type", value: 0 })
            }
        }
    }

    /// Whether this is an attestation key as this product makes them: EC P-256 or RSA, signs only
    /// what its TPM produced (restricted), made inside the TPM and not movable. The caller that
    /// decides about enrolment names which property is missing.
    #[must_use]
    pub fn is_attestation_key(&self) -> bool {
        let needed = Attributes::RESTRICTED
            .and(Attributes::SIGN)
            .and(Attributes::FIXED_TPM)
            .and(Attributes::FIXED_PARENT)
            .and(Attributes::SENSITIVE_DATA_ORIGIN);
        self.attributes.contains(needed)
            && !self.attributes.contains(Attributes::DECRYPT)
            && self.verifying_key().is_ok()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.sized(&self.bytes);
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Public")
            .field("name", &self.name())
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}
