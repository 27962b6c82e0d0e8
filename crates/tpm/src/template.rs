//! Key templates: public areas for CreatePrimary and Create. The EK and SRK ones are the TCG's
//! (EK Credential Profile 2.3, templates L-1 and L-2; Provisioning Guidance 1.0), so that other
//! software derives the same keys.

use crate::{public::Attributes, wire::Writer};

/// PolicySecret(TPM_RH_ENDORSEMENT), the authPolicy of low-range EKs.
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

const RSA: u16 = 0x0001;
const KEYEDHASH: u16 = 0x0008;
const ECC: u16 = 0x0023;
const SHA256: u16 = 0x000b;
const NULL: u16 = 0x0010;
const P256: u16 = 0x0003;

/// Attributes of every key that stays where it was made.
const FIXED: Attributes = Attributes::FIXED_TPM.and(Attributes::FIXED_PARENT);
const STORAGE: Attributes = Attributes::RESTRICTED.and(Attributes::DECRYPT);
const SIGNING: Attributes = Attributes::RESTRICTED.and(Attributes::SIGN);

/// A public area to create a key from (TPMT_PUBLIC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<u8>);

impl Template {
    /// The TPMT_PUBLIC.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn begin(kind: u16, attributes: Attributes, policy: &[u8]) -> Writer {
    let mut writer = Writer::small();
    writer.u16(kind).u16(SHA256).u32(attributes.0).sized(policy);
    writer
}

fn end(writer: Writer) -> Template {
    // Every template here is far smaller than a frame.
    Template(writer.finish_public().unwrap_or_default())
}

/// AES-128-CFB, as storage keys protect their children.
fn aes(writer: &mut Writer) -> &mut Writer {
    writer.u16(0x0006).u16(128).u16(0x0043)
}

fn ek_attributes() -> Attributes {
    FIXED.and(Attributes::SENSITIVE_DATA_ORIGIN).and(Attributes::ADMIN_WITH_POLICY).and(STORAGE)
}

/// EC P-256 storage key: scheme null, KDF null, unique of two times 32 zeros.
fn p256_storage(attributes: Attributes, policy: &[u8]) -> Template {
    let mut writer = begin(ECC, attributes, policy);
    aes(&mut writer).u16(NULL).u16(P256).u16(NULL).sized(&[0; 32]).sized(&[0; 32]);
    end(writer)
}

/// The EK on P-256 (template L-2).
#[must_use]
pub fn ek_p256() -> Template {
    p256_storage(ek_attributes(), &EK_POLICY)
}

/// The EK with RSA-2048 (template L-1).
#[must_use]
pub fn ek_rsa2048() -> Template {
    let mut writer = begin(RSA, ek_attributes(), &EK_POLICY);
    aes(&mut writer).u16(NULL).u16(2048).u32(0).sized(&[0; 256]);
    end(writer)
}

/// The storage root key on P-256.
#[must_use]
pub fn srk_p256() -> Template {
    let attributes = FIXED
        .and(Attributes::SENSITIVE_DATA_ORIGIN)
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::NO_DA)
        .and(STORAGE);
    p256_storage(attributes, &[])
}

/// An attestation key: P-256, restricted, ECDSA with SHA-256, without dictionary-attack protection
/// (its authValue is empty or 256 random bits). As a primary key it is the same each time.
#[must_use]
pub fn ak_p256() -> Template {
    ak(&[], &[])
}

/// As [`ak_p256`], derived from `unique` too. Who does not know these bytes cannot derive the key
/// again, even with the hierarchy's authorization: for a key whose hierarchy others will own.
#[must_use]
pub fn ak_p256_unique(unique: &[u8; 64]) -> Template {
    let (x, y) = unique.split_at(32);
    ak(x, y)
}

fn ak(x: &[u8], y: &[u8]) -> Template {
    let attributes = FIXED
        .and(Attributes::SENSITIVE_DATA_ORIGIN)
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::NO_DA)
        .and(SIGNING);
    let mut writer = begin(ECC, attributes, &[]);
    writer.u16(NULL).u16(0x0018).u16(SHA256).u16(P256).u16(NULL).sized(x).sized(y);
    end(writer)
}

/// A P-256 key for key agreement that may leave its parent, as `policy` says, and only encrypted
/// twice.
#[must_use]
pub fn movable_p256(policy: &[u8; 32]) -> Template {
    let attributes = Attributes::SENSITIVE_DATA_ORIGIN
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::NO_DA)
        .and(Attributes::ENCRYPTED_DUPLICATION)
        .and(Attributes::DECRYPT);
    let mut writer = begin(ECC, attributes, policy);
    writer.u16(NULL).u16(NULL).u16(P256).u16(NULL).sized(&[]).sized(&[]);
    end(writer)
}

/// Sealed data that only `policy` opens.
#[must_use]
pub fn sealed(policy: &[u8; 32]) -> Template {
    let mut writer = begin(KEYEDHASH, FIXED.and(Attributes::NO_DA), policy);
    writer.u16(NULL).sized(&[]);
    end(writer)
}

/// Sealed data that was wrapped outside: `unique` binds public and sensitive parts.
pub(crate) fn imported(policy: &[u8; 32], unique: &[u8; 32]) -> Template {
    let mut writer = begin(KEYEDHASH, Attributes::NO_DA, policy);
    writer.u16(NULL).sized(unique);
    end(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Public;

    #[test]
    fn templates_parse_as_public_areas_with_the_attributes_of_the_tcg() {
        for (template, attributes) in [
            (ek_p256(), 0x0003_00b2),
            (ek_rsa2048(), 0x0003_00b2),
            (srk_p256(), 0x0003_0472),
            (ak_p256(), 0x0005_0472),
            (movable_p256(&[0; 32]), 0x0002_0c60),
            (sealed(&[0; 32]), 0x0000_0412),
        ] {
            let public = Public::parse(template.as_bytes()).unwrap();
            assert_eq!(public.attributes(), Attributes(attributes));
        }
        assert!(Public::parse(ak_p256().as_bytes()).unwrap().is_attestation_key());
        assert!(!Public::parse(srk_p256().as_bytes()).unwrap().is_attestation_key());
    }
}
