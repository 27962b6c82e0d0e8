//! PCR selections and values.

use std::collections::BTreeMap;

use model::{Digest, HashAlg};

use crate::{
    crypt,
    error::Malformed,
    wire::{Reader, Writer},
};

/// How many PCRs a PC platform has.
pub const PCR_COUNT: u8 = 24;

/// Which PCRs of which banks (TPML_PCR_SELECTION). Banks keep their order; it matters for digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrSelection {
    banks: Vec<(HashAlg, u32)>,
}

impl PcrSelection {
    /// Nothing selected.
    #[must_use]
    pub const fn none() -> Self {
        Self { banks: Vec::new() }
    }

    /// PCRs of the SHA-256 bank. Indices of 24 and more are ignored.
    #[must_use]
    pub fn sha256(pcrs: &[u8]) -> Self {
        Self::none().with(HashAlg::Sha256, pcrs)
    }

    /// PCRs 0 to 23 of the SHA-256 bank.
    #[must_use]
    pub fn all_sha256() -> Self {
        Self { banks: vec![(HashAlg::Sha256, 0x00ff_ffff)] }
    }

    /// Adds a bank, or PCRs to a bank that is there. Indices of 24 and more are ignored.
    #[must_use]
    pub fn with(mut self, alg: HashAlg, pcrs: &[u8]) -> Self {
        let mask = pcrs
            .iter()
            .filter(|pcr| **pcr < PCR_COUNT)
            .fold(0_u32, |mask, pcr| mask | (1 << u32::from(*pcr)));
        match self.banks.iter_mut().find(|(bank, _)| *bank == alg) {
            Some((_, present)) => *present |= mask,
            None => self.banks.push((alg, mask)),
        }
        self
    }

    /// Every selected (bank, PCR) in the order in which a TPM hashes them.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlg, u8)> + '_ {
        self.banks.iter().flat_map(|(alg, mask)| {
            (0..PCR_COUNT).filter(move |pcr| mask & (1 << u32::from(*pcr)) != 0).map(|p| (*alg, p))
        })
    }

    /// Whether this PCR is selected.
    #[must_use]
    pub fn contains(&self, alg: HashAlg, pcr: u8) -> bool {
        self.iter().any(|selected| selected == (alg, pcr))
    }

    /// No PCR at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(u32::try_from(self.banks.len()).unwrap_or(0));
        for (alg, mask) in &self.banks {
            let [a, b, c, _] = mask.to_le_bytes();
            writer.u16(alg.tpm_id()).u8(3).bytes(&[a, b, c]);
        }
    }

    /// Reads a TPML_PCR_SELECTION; `skip_unknown` drops banks of other algorithms instead of
    /// refusing (for the list of allocated banks).
    pub(crate) fn read(reader: &mut Reader<'_>, skip_unknown: bool) -> Result<Self, Malformed> {
        let count = reader.u32()?;
        if count > 16 {
            return Err(Malformed::TooLong);
        }
        let mut banks = Vec::new();
        for _ in 0..count {
            let id = reader.u16()?;
            let size = usize::from(reader.u8()?);
            if size > 4 {
                return Err(Malformed::TooLong);
            }
            let mut mask = [0_u8; 4];
            for (to, from) in mask.iter_mut().zip(reader.bytes(size)?) {
                *to = *from;
            }
            let mask = u32::from_le_bytes(mask);
            if mask > 0x00ff_ffff {
                return Err(Malformed::Value { what: "pcrSelect" });
            }
            match HashAlg::from_tpm_id(id) {
                Some(alg) => banks.push((alg, mask)),
                None if skip_unknown => {}
                None => {
                    return Err(Malformed::Unsupported { what: "PCR bank", value: id.into() });
                }
            }
        }
        Ok(Self { banks })
    }
}

/// Values of PCRs by bank and index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<(HashAlg, u8), Digest>);

impl PcrValues {
    /// No values yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets one value; its bank is that of the digest.
    pub fn insert(&mut self, pcr: u8, value: Digest) {
        self.0.insert((value.alg(), pcr), value);
    }

    /// One value.
    #[must_use]
    pub fn get(&self, alg: HashAlg, pcr: u8) -> Option<&Digest> {
        self.0.get(&(alg, pcr))
    }

    /// All values, by bank and then index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Digest)> {
        self.0.iter().map(|((_, pcr), value)| (*pcr, value))
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `selection`.
    #[must_use]
    pub fn selected(&self, selection: &PcrSelection) -> Self {
        let value = |(alg, pcr)| self.get(alg, pcr).map(|value| (pcr, *value));
        selection.iter().filter_map(value).collect()
    }

    /// The pcrDigest of a quote or policy over `selection`: SHA-256 of the selected values in order.
    /// `None` if one of them is not here.
    #[must_use]
    pub fn digest(&self, selection: &PcrSelection) -> Option<[u8; 32]> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for (alg, pcr) in selection.iter() {
            parts.push(self.get(alg, pcr)?.as_bytes());
        }
        Some(crypt::sha256(&parts))
    }
}

impl FromIterator<(u8, Digest)> for PcrValues {
    fn from_iter<I: IntoIterator<Item = (u8, Digest)>>(values: I) -> Self {
        let mut out = Self::new();
        for (pcr, value) in values {
            out.insert(pcr, value);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_the_wire() {
        let selection = PcrSelection::sha256(&[0, 7, 23]).with(HashAlg::Sha1, &[10]);
        let mut writer = Writer::small();
        selection.write(&mut writer);
        let bytes = writer.finish_public().unwrap();
        let mut reader = Reader::new(&bytes);
        assert_eq!(PcrSelection::read(&mut reader, false), Ok(selection));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_digest_needs_every_selected_value() {
        let values: PcrValues = [(0, Digest::sha256([1; 32]))].into_iter().collect();
        assert!(values.digest(&PcrSelection::sha256(&[0])).is_some());
        assert_eq!(values.digest(&PcrSelection::sha256(&[0, 1])), None);
    }
}
