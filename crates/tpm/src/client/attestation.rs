//! Quotes and certifications.

use tpm2_protocol::data::TpmCc;

use super::{Command, Object, Tpm};
use crate::{
    attest::{Attest, Attested},
    auth::{Auth, AuthValue},
    error::{Malformed, TpmError},
    pcr::{PcrSelection, PcrValues},
    qualifying::QualifyingData,
    wire::Writer,
};

const NULL: u16 = 0x0010;

/// How often a quote is taken again because PCRs changed between reading and quoting.
const ATTEMPTS: u32 = 8;

/// A quote with the values that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST, as signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The PCR values; their digest is the one in `attest`.
    pub pcrs: PcrValues,
}

/// TPM2_Certify's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certification {
    /// TPMS_ATTEST, as signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

impl Tpm {
    /// TPM2_Quote together with the values, which agree with what is signed. The selection must
    /// name allocated banks only.
    ///
    /// # Errors
    /// [`TpmError::Unstable`] if PCRs never hold still.
    pub fn quote(
        &mut self,
        ak: &Object,
        ak_auth: &AuthValue,
        qualifying: &QualifyingData,
        selection: &PcrSelection,
    ) -> Result<Quote, TpmError> {
        self.quote_expecting(ak, ak_auth, qualifying, selection, PcrValues::new())
    }

    /// As [`Self::quote`], for a caller who knows what the PCRs should hold: they are read only if
    /// the TPM signs something else.
    ///
    /// # Errors
    /// As [`Self::quote`].
    pub fn quote_expecting(
        &mut self,
        ak: &Object,
        ak_auth: &AuthValue,
        qualifying: &QualifyingData,
        selection: &PcrSelection,
        expected: PcrValues,
    ) -> Result<Quote, TpmError> {
        let mut pcrs = expected;
        for _ in 0..ATTEMPTS {
            if pcrs.digest(selection).is_none() {
                pcrs = self.pcr_read(selection)?;
            }
            let digest = pcrs.digest(selection).ok_or(TpmError::Crypto("a PCR has no value"))?;
            let quote = self.quote_once(ak, ak_auth, qualifying, selection)?;
            let attest = Attest::parse(&quote.attest).map_err(TpmError::malformed("quote"))?;
            let Attested::Quote { pcr_digest, .. } = attest.attested else {
                return Err(TpmError::malformed("quote")(Malformed::Value { what: "type" }));
            };
            if digest == pcr_digest.as_bytes() {
                let pcrs = pcrs.selected(selection);
                return Ok(Quote { attest: quote.attest, signature: quote.signature, pcrs });
            }
            pcrs = PcrValues::new();
        }
        Err(TpmError::Unstable)
    }

    fn quote_once(
        &mut self,
        ak: &Object,
        ak_auth: &AuthValue,
        qualifying: &QualifyingData,
        selection: &PcrSelection,
    ) -> Result<Certification, TpmError> {
        let mut parameters = Writer::small();
        parameters.sized(qualifying.as_bytes()).u16(NULL);
        selection.write(&mut parameters);
        let handles = [ak.entity()];
        let mut auths = [Auth::Password(ak_auth)];
        let command = Command::authorized(TpmCc::Quote, &handles, parameters, &mut auths)?;
        self.execute(command).and_then(|response| attestation(&response.parameters))
    }

    /// TPM2_Certify: `signer` attests that `object` is in this TPM.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn certify(
        &mut self,
        object: &Object,
        object_auth: &AuthValue,
        signer: &Object,
        signer_auth: &AuthValue,
        qualifying: &QualifyingData,
    ) -> Result<Certification, TpmError> {
        let mut parameters = Writer::small();
        parameters.sized(qualifying.as_bytes()).u16(NULL);
        let handles = [object.entity(), signer.entity()];
        let mut auths = [Auth::Password(object_auth), Auth::Password(signer_auth)];
        let command = Command::authorized(TpmCc::Certify, &handles, parameters, &mut auths)?;
        self.execute(command).and_then(|response| attestation(&response.parameters))
    }
}

/// TPM2B_ATTEST and TPMT_SIGNATURE.
fn attestation(parameters: &[u8]) -> Result<Certification, TpmError> {
    let mut reader = crate::wire::Reader::new(parameters);
    let attest = reader.sized(1024).map_err(TpmError::malformed("attestation"))?.to_vec();
    Ok(Certification { attest, signature: reader.rest().to_vec() })
}
