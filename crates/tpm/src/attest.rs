//! Attestation structures (TPMS_ATTEST, part 2 section 10.12): what a TPM signs. Bytes come from
//! hosts and are not trusted.

use model::Digest;

use crate::{
    error::Malformed, pcr::PcrSelection, public::Name, qualifying::QualifyingData, wire::Reader,
};

const GENERATED: u32 = 0xff54_4347;

/// A TPM's clock (TPMS_CLOCK_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds in which the TPM was powered.
    pub clock: u64,
    /// Counts TPM resets.
    pub reset_count: u32,
    /// Counts resumes and restarts since the last reset.
    pub restart_count: u32,
    /// Whether no higher clock value was reported before.
    pub safe: bool,
}

impl ClockInfo {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            clock: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(Malformed::Value { what: "safe" }),
            },
        })
    }
}

/// What is attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attested {
    /// TPM2_Certify: an object is in the same TPM.
    Certify {
        /// The object's Name.
        name: Name,
        /// Its Qualified Name.
        qualified_name: Name,
    },
    /// TPM2_Quote: the state of PCRs.
    Quote {
        /// Which PCRs.
        selection: PcrSelection,
        /// SHA-256 over their values, in the order of the selection.
        pcr_digest: Digest,
    },
}

/// A parsed TPMS_ATTEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// The Qualified Name of the key that signed.
    pub qualified_signer: Name,
    /// qualifyingData as it was given to the TPM, at most 64 bytes.
    pub extra_data: Vec<u8>,
    /// The TPM's clock.
    pub clock: ClockInfo,
    /// The TPM's firmware version.
    pub firmware_version: u64,
    /// What is attested.
    pub attested: Attested,
}

impl Attest {
    /// Parses a TPMS_ATTEST, exactly. Quotes and certifications are supported.
    ///
    /// # Errors
    /// [`Malformed`]; [`Malformed::Magic`] if a TPM did not make it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != GENERATED {
            return Err(Malformed::Magic);
        }
        let kind = reader.u16()?;
        let qualified_signer = Name::new(reader.sized(66)?)?;
        let extra_data = reader.sized(64)?.to_vec();
        let clock = ClockInfo::read(&mut reader)?;
        let firmware_version = reader.u64()?;
        let attested = match kind {
            0x8017 => Attested::Certify {
                name: Name::new(reader.sized(66)?)?,
                qualified_name: Name::new(reader.sized(66)?)?,
            },
            0x8018 => Attested::Quote {
                selection: PcrSelection::read(&mut reader, false)?,
                pcr_digest: {
                    let digest = reader.sized(64)?;
                    let digest: [u8; 32] =
                        digest.try_into().map_err(|_| Malformed::Value { what: "pcrDigest" })?;
                    Digest::sha256(digest)
                },
            },
            other => {
                return Err(Malformed::Unsupported {
                    what: "attestation type",
                    value: other.into(),
                });
            }
        };
        reader.finish()?;
        Ok(Self { qualified_signer, extra_data, clock, firmware_version, attested })
    }

    /// Whether this attestation was made for exactly this purpose, nonce and binding.
    #[must_use]
    pub fn is_for(&self, qualifying: &QualifyingData) -> bool {
        crate::crypt::same(&self.extra_data, qualifying.as_bytes())
    }
}
