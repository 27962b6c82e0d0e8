//! What both appraisals do with a quote: AK, signature, binding, PCR selection.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use model::{Digest, HashAlg};
use tpm::{
    Attest, Attested, Attributes, Name, PcrSelection, Public, Signature, SignatureFault,
    VerifyingKey,
};

use crate::{Rejection, envelope::KeyUnusable};

/// An AK as enrolment recorded it; its key is parsed once.
#[derive(Debug)]
pub struct EnrolledAk {
    public: Public,
    name: Name,
    key: ParsedPublicKey,
}

/// What an AK must be: (attribute, its name).
const AK_ATTRIBUTES: [(Attributes, &str); 5] = [
    (Attributes::RESTRICTED, "restricted"),
    (Attributes::SIGN, "sign"),
    (Attributes::FIXED_TPM, "fixedTPM"),
    (Attributes::FIXED_PARENT, "fixedParent"),
    (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
];

/// That a key may be enrolled as an AK: it signs only what its TPM produced, was made there and
/// cannot leave it.
///
/// # Errors
/// [`Rejection::AkWrongAttributes`], naming all that is missing.
pub fn check_ak_attributes(public: &Public) -> Result<(), Rejection> {
    let mut missing: Vec<&'static str> = AK_ATTRIBUTES
        .into_iter()
        .filter(|(attribute, _)| !public.attributes().contains(*attribute))
        .map(|(_, name)| name)
        .collect();
    if public.attributes().contains(Attributes::DECRYPT) {
        missing.push("sign-only");
    }
    if public.verifying_key().is_err() {
        missing.push("an EC P-256 or RSA key");
    }
    if public.name_alg() != HashAlg::Sha256 {
        missing.push("named by SHA-256");
    }
    if missing.is_empty() { Ok(()) } else { Err(Rejection::AkWrongAttributes { missing }) }
}

impl EnrolledAk {
    /// Admits an AK: at enrolment, and again when its record is read.
    ///
    /// # Errors
    /// [`Rejection::AkWrongAttributes`].
    pub fn admit(public: Public) -> Result<Self, Rejection> {
        check_ak_attributes(&public)?;
        let unusable = |_| Rejection::AkWrongAttributes { missing: vec!["a usable key"] };
        let key = public.verifying_key().map_err(|_| KeyUnusable).map_err(unusable)?;
        let key = parse_key(&key).map_err(unusable)?;
        let name = public.name();
        Ok(Self { public, name, key })
    }

    /// The AK's Name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// That the evidence names this AK.
    pub(crate) fn check_is(&self, presented: &[u8]) -> Result<(), Rejection> {
        if self.public.as_bytes() == presented {
            return Ok(());
        }
        let found = Public::parse(presented)
            .map_or_else(|_| "(not a public area)".to_owned(), |public| public.name().to_string());
        Err(Rejection::AkNotEnrolled { found, enrolled: self.name.clone() })
    }

    pub(crate) const fn key(&self) -> &ParsedPublicKey {
        &self.key
    }
}

/// Parses a public key for verification of TPM signatures.
pub(crate) fn parse_key(key: &VerifyingKey) -> Result<ParsedPublicKey, KeyUnusable> {
    match key {
        VerifyingKey::P256 { .. } => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.spki_der()),
        VerifyingKey::Rsa { .. } => {
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.spki_der())
        }
    }
    .map_err(|_| KeyUnusable)
}

/// A quote whose signature was verified.
#[derive(Debug)]
pub(crate) struct VerifiedQuote {
    pub(crate) attest: Attest,
    pub(crate) selection: PcrSelection,
    pub(crate) pcr_digest: Digest,
}

/// Verifies the signature, then reads the quote: it must be one, made by a TPM.
pub(crate) fn verify(
    key: &ParsedPublicKey,
    quote: &[u8],
    signature: &[u8],
) -> Result<VerifiedQuote, Rejection> {
    let signature = Signature::parse(signature)
        .map_err(|malformed| Rejection::QuoteSignatureInvalid(malformed.to_string()))?;
    let bytes: &[u8] = match &signature {
        Signature::Ecdsa { rs } => rs,
        Signature::Rsassa { bytes } => bytes,
    };
    // A signature of the other algorithm has another length and does not verify either.
    key.verify_sig(quote, bytes).map_err(|_| Rejection::signature(SignatureFault::Invalid))?;
    let attest = Attest::parse(quote).map_err(Rejection::QuoteMalformed)?;
    match &attest.attested {
        Attested::Quote { selection, pcr_digest } => {
            let (selection, pcr_digest) = (selection.clone(), *pcr_digest);
            Ok(VerifiedQuote { attest, selection, pcr_digest })
        }
        Attested::Certify { .. } => Err(Rejection::QuoteTypeUnexpected),
    }
}

impl VerifiedQuote {
    /// That the SHA-256 bank alone is quoted, and all of these PCRs of it.
    pub(crate) fn check_covers(&self, required: &[u8]) -> Result<(), Rejection> {
        if let Some((alg, _)) = self.selection.iter().find(|(alg, _)| *alg != HashAlg::Sha256) {
            return Err(Rejection::PcrBankUnsupported(alg.name()));
        }
        let quoted = self.pcrs().fold(0_u32, |mask, pcr| mask | (1 << pcr));
        let missing = |pcr: &&u8| quoted & (1_u32.checked_shl(u32::from(**pcr)).unwrap_or(0)) == 0;
        let pcrs: Vec<u8> = required.iter().filter(missing).copied().collect();
        if pcrs.is_empty() { Ok(()) } else { Err(Rejection::PcrMissing { pcrs }) }
    }

    /// The quoted PCRs in the order in which the TPM hashed them.
    pub(crate) fn pcrs(&self) -> impl Iterator<Item = u8> + '_ {
        self.selection.iter().map(|(_, pcr)| pcr)
    }
}
