//! Comparison of a prediction with the extends that the vTPM proxy observed.
//!
//! Each PCR is compared by itself, in order. An observed extend that is not the next expected one
//! is looked for further on (then the ones between are missing) and else is unexpected, unless its
//! PCR is listed as unpredicted.

use aws_lc_rs::digest::{Context, SHA256, digest};
use model::Digest;

use super::{Predicted, Prediction, Presence};

/// The PCR of IMA.
const IMA_PCR: u8 = 10;

/// One observed extend of the SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend {
    /// The PCR.
    pub pcr: u8,
    /// The digest that was extended.
    pub digest: [u8; 32],
}

/// An observed extend that has its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Index in the observed list.
    pub index: usize,
    /// The prediction's name for it.
    pub name: String,
}

/// An observed extend that nothing predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Index in the observed list.
    pub index: usize,
    /// The PCR.
    pub pcr: u8,
    /// The digest that was extended.
    pub digest: Digest,
    /// What should have come instead, if anything more was expected in this PCR.
    pub instead_of: Option<String>,
}

/// A predicted extend that did not come (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The PCR.
    pub pcr: u8,
    /// The prediction's name for it.
    pub name: String,
}

/// How an observed list stands to a prediction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Observed and predicted, in observed order.
    pub matched: Vec<Matched>,
    /// Observed in a PCR of [`Prediction::unpredicted`], without a prediction: indices.
    pub tolerated: Vec<usize>,
    /// Observed and not predicted: any entry means that the guest ran something else.
    pub unexpected: Vec<Unexpected>,
    /// Predicted and not observed: the boot has not got there, or went another way.
    pub missing: Vec<Missing>,
}

impl Comparison {
    /// Whether every extend was predicted and every predicted one came.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unexpected.is_empty() && self.missing.is_empty()
    }
}

impl Prediction {
    /// Compares with the observed list since the last reset of the guest, oldest first.
    #[must_use]
    pub fn compare(&self, observed: &[Extend]) -> Comparison {
        let mut result = Comparison::default();
        let aggregate = self.boot_aggregate.then(|| boot_aggregate(observed));
        let mut pcrs: Vec<u8> = self.entries.iter().map(|entry| entry.pcr).collect();
        pcrs.extend(observed.iter().map(|extend| extend.pcr));
        pcrs.sort_unstable();
        pcrs.dedup();
        for pcr in pcrs {
            let mut expected: Vec<&Predicted> =
                self.entries.iter().filter(|entry| entry.pcr == pcr).collect();
            if pcr == IMA_PCR {
                expected.splice(0..0, &aggregate);
            }
            self.compare_pcr(pcr, &expected, observed, &mut result);
        }
        if let Some(entry) = aggregate
            && !observed.iter().any(|extend| extend.pcr == IMA_PCR)
        {
            result.missing.push(Missing { pcr: IMA_PCR, name: entry.name });
        }
        result.matched.sort_by_key(|matched| matched.index);
        result.tolerated.sort_unstable();
        result.unexpected.sort_by_key(|unexpected| unexpected.index);
        result
    }

    /// One PCR of [`Self::compare`].
    fn compare_pcr(
        &self,
        pcr: u8,
        expected: &[&Predicted],
        observed: &[Extend],
        result: &mut Comparison,
    ) {
        let tolerant = self.unpredicted.iter().any(|entry| entry.pcr == pcr);
        let mut rest = expected;
        for (index, extend) in observed.iter().enumerate().filter(|(_, extend)| extend.pcr == pcr) {
            let value = Digest::sha256(extend.digest);
            if let Some(skipped) = rest.iter().position(|entry| entry.digests.contains(&value)) {
                let (before, from) = rest.split_at(skipped);
                result.missing.extend(missing(before));
                if let Some((entry, after)) = from.split_first() {
                    result.matched.push(Matched { index, name: entry.name.clone() });
                    rest = after;
                }
            } else if tolerant {
                result.tolerated.push(index);
            } else {
                let next = rest.iter().find(|entry| entry.presence == Presence::Always);
                let instead_of = next.map(|entry| entry.name.clone());
                result.unexpected.push(Unexpected { index, pcr, digest: value, instead_of });
            }
        }
        result.missing.extend(missing(rest));
    }
}

/// The expected extends among `entries` that may not be left out.
fn missing(entries: &[&Predicted]) -> impl Iterator<Item = Missing> {
    let always = entries.iter().filter(|entry| entry.presence == Presence::Always);
    always.map(|entry| Missing { pcr: entry.pcr, name: entry.name.clone() })
}

/// The expected first extend of PCR 10, from the PCRs as they stood when IMA started.
fn boot_aggregate(observed: &[Extend]) -> Predicted {
    let mut pcrs = [[0; 32]; 10];
    for extend in observed.iter().take_while(|extend| extend.pcr != IMA_PCR) {
        let index = usize::from(extend.pcr);
        if let Some(value) = pcrs.get_mut(index) {
            let mut context = Context::new(&SHA256);
            context.update(value);
            context.update(&extend.digest);
            value.copy_from_slice(context.finish().as_ref());
        }
    }
    Predicted::always(IMA_PCR, &boot_aggregate_extend(&pcrs), "IMA boot aggregate")
}

/// What IMA extends into PCR 10 first, when PCR 0 to 9 hold these SHA-256 values.
///
/// The boot aggregate is the digest of the ten values; the extended digest is that of its
/// `ima-sig` template data: each field (algorithm and digest, name, empty signature) after its
/// length as little-endian u32 (Linux 5.8 and later, `ima_calc_boot_aggregate_tfm`).
#[must_use]
pub fn boot_aggregate_extend(pcrs: &[[u8; 32]; 10]) -> [u8; 32] {
    let aggregate = digest(&SHA256, pcrs.as_flattened());
    let mut data = 40_u32.to_le_bytes().to_vec();
    data.extend(b"sha256:\0");
    data.extend(aggregate.as_ref());
    data.extend(15_u32.to_le_bytes());
    data.extend(b"boot_aggregate\0");
    data.extend(0_u32.to_le_bytes());
    let mut extended = [0; 32];
    extended.copy_from_slice(digest(&SHA256, &data).as_ref());
    extended
}
