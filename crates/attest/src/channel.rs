//! Appraisal of a guest's client on one connection to the trust service of its server: is it the
//! VM's own vTPM, in the state that the agent saw and the authority affirmed, does it speak now and
//! on this very connection, and is what runs in the guest the approved client and nothing unknown?
//!
//! ```text
//! guest affirmed -> EK certificate is the VM's -> AK good -> credential for both        [`open`]
//! in time -> credential opened -> signature -> nonce, connection -> PCRs covered
//!   -> list leads to PCR 10 -> boot PCRs are the observed ones -> client, software      [`appraise`]
//! ```
//!
//! **Invariants:** a [`Proven`] is made by [`appraise`] alone; what evidence claims (nonce, channel,
//! PCR 10) decides only which refusal is named; nothing measured is passed over.

mod rejection;
mod software;

use aws_lc_rs::constant_time;
use model::{
    Digest, Epoch, HashAlg, Nonce, Secret, VmId,
    guest::{self, ChallengeAsk, ChannelEvidence, IMA_PCR, MAX_CERTIFICATE, MAX_IMA, Measured},
};
use pki::CertFacts;
use tpm::{Credential, Public, Purpose, QualifyingData};

pub use self::{rejection::ChannelRejection, software::SoftwarePolicy};
use crate::{eventlog::Sha256Replay, host::EnrolledAk, ima::ImaList, quote};

/// The keys that a client answers with, once they are known to be the VM's: made by [`open`] alone.
#[derive(Debug)]
pub struct Keys {
    ek: Public,
    ak: EnrolledAk,
}

impl Keys {
    /// What only the TPM with this EK *and* this AK can open.
    ///
    /// # Errors
    /// [`ChannelRejection::VtpmForeign`] for an EK that is no decryption key.
    pub fn credential(&self, secret: &Secret<[u8; 32]>) -> Result<Credential, ChannelRejection> {
        let secret = Secret::new(secret.expose().to_vec());
        tpm::software::make_credential(&self.ek, self.ak.name(), &secret)
            .map_err(|error| foreign(error.to_string()))
    }
}

/// What the verifier gave out for one connection, from its own records.
#[derive(Debug)]
pub struct Opened {
    /// The client's keys.
    pub keys: Keys,
    /// The nonce.
    pub nonce: Nonce,
    /// When it stops working, Unix milliseconds.
    pub expires_at: u64,
    /// Digest of the connection's TLS exporter.
    pub channel: Digest,
    /// What the credential holds.
    pub secret: Secret<[u8; 32]>,
}

/// **The proof**: on this connection speaks an approved client in this VM.
#[derive(Debug)]
pub struct Proven {
    vm: VmId,
    epoch: Epoch,
    client: Digest,
}

impl Proven {
    /// The VM.
    #[must_use]
    pub const fn vm(&self) -> &VmId {
        &self.vm
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Digest of the client's program.
    #[must_use]
    pub const fn client(&self) -> Digest {
        self.client
    }
}

fn foreign(reason: impl Into<String>) -> ChannelRejection {
    ChannelRejection::VtpmForeign(reason.into())
}

fn affirmed(measured: &Measured) -> Result<(), ChannelRejection> {
    match measured.trusted {
        Some(true) => Ok(()),
        Some(false) => Err(ChannelRejection::GuestNotAffirmed("its last verdict is bad")),
        None => Err(ChannelRejection::GuestNotAffirmed("there is no verdict on this launch yet")),
    }
}

/// Takes the keys of a client on the port of the VM that `measured` is about.
///
/// # Errors
/// [`ChannelRejection::GuestNotAffirmed`], [`ChannelRejection::VtpmForeign`].
pub fn open(ask: &ChallengeAsk, measured: &Measured) -> Result<Keys, ChannelRejection> {
    affirmed(measured)?;
    if ask.ek_certificate.0.len() > MAX_CERTIFICATE
        || measured.ek_certificate.as_ref() != Some(&ask.ek_certificate)
    {
        return Err(foreign("its EK certificate is not the one of this VM"));
    }
    let ek = Public::parse(&ask.ek.0).map_err(|error| foreign(format!("its EK: {error}")))?;
    let certified = CertFacts::read(&ask.ek_certificate.0)
        .map_err(|error| foreign(format!("its EK certificate: {error}")))?;
    if ek.spki_der().ok() != Some(certified.spki) {
        return Err(foreign("its EK is not the certified one"));
    }
    let ak = Public::parse(&ask.ak.0).map_err(|error| foreign(format!("its AK: {error}")))?;
    let ak = EnrolledAk::admit(ak).map_err(|error| foreign(error.to_string()))?;
    Ok(Keys { ek, ak })
}

/// Appraises the proof. `measured` is what the agent says *now*.
///
/// # Errors
/// [`ChannelRejection`], the first rule that said no.
pub fn appraise(
    opened: &Opened,
    evidence: &ChannelEvidence,
    measured: &Measured,
    policy: &SoftwarePolicy,
    now: u64,
) -> Result<Proven, ChannelRejection> {
    if now >= opened.expires_at {
        return Err(ChannelRejection::QuoteReplayed("the challenge is over"));
    }
    affirmed(measured)?;
    let secret = evidence.secret.0.expose();
    if constant_time::verify_slices_are_equal(secret, opened.secret.expose()).is_err() {
        return Err(foreign("it could not open the credential"));
    }
    let attest = quote::verify(opened.keys.ak.key(), &evidence.quote.0, &evidence.signature.0)
        .map_err(|error| ChannelRejection::QuoteInvalid(error.to_string()))?;
    bound(opened, evidence, &attest.attest)?;
    attest
        .check_covers(&guest::PCRS)
        .map_err(|error| ChannelRejection::QuoteInvalid(error.to_string()))?;
    let log = &evidence.ima_log.0;
    if log.len() > MAX_IMA {
        return Err(ChannelRejection::ImaLogDisagrees(format!("it exceeds {MAX_IMA} bytes")));
    }
    let list = ImaList::parse(log)
        .map_err(|error| ChannelRejection::ImaLogDisagrees(error.to_string()))?;
    let before = measured_before(&list, &evidence.ima_value)?;
    let expected = expected_digest(attest.pcrs(), measured, &evidence.ima_value)?;
    if expected != attest.pcr_digest {
        return Err(ChannelRejection::MeasurementsDiffer);
    }
    // Entries after the quote are no evidence; those before are all of it.
    let entries = list.entries.get(..before).unwrap_or_default();
    let client = policy.check(entries)?;
    Ok(Proven { vm: measured.vm.clone(), epoch: measured.epoch, client })
}

/// That the quote was made for this nonce and connection.
fn bound(
    opened: &Opened,
    evidence: &ChannelEvidence,
    attest: &tpm::Attest,
) -> Result<(), ChannelRejection> {
    let made_for = |nonce: &Nonce, channel: &Digest| {
        let parts = [channel.as_bytes()];
        attest.is_for(&QualifyingData::bind(Purpose::GuestChannel, nonce, &parts))
    };
    if made_for(&opened.nonce, &opened.channel) {
        return Ok(());
    }
    if made_for(&opened.nonce, &evidence.channel) {
        return Err(ChannelRejection::QuoteRelayed);
    }
    Err(ChannelRejection::QuoteReplayed("it answers another challenge"))
}

/// How many entries of the list lead to this value of PCR 10.
fn measured_before(list: &ImaList<'_>, value: &Digest) -> Result<usize, ChannelRejection> {
    if let Some(entry) = list.entries.iter().find(|entry| entry.pcr != IMA_PCR) {
        return Err(ChannelRejection::ImaLogDisagrees(format!("an entry for PCR {}", entry.pcr)));
    }
    let mut replay = Sha256Replay::new(0);
    for (index, entry) in list.entries.iter().enumerate() {
        replay.extend(IMA_PCR, &entry.extended);
        if Digest::sha256(replay.value(IMA_PCR)) == *value {
            return Ok(index.saturating_add(1));
        }
    }
    Err(ChannelRejection::ImaLogDisagrees("it does not lead to PCR 10".to_owned()))
}

/// The digest that a TPM signs over these PCRs: PCR 10 as the list gave it, all others as the
/// agent observed them.
fn expected_digest(
    pcrs: impl Iterator<Item = u8>,
    measured: &Measured,
    ima: &Digest,
) -> Result<Digest, ChannelRejection> {
    let mut values = Vec::with_capacity(16 * 32);
    for pcr in pcrs {
        let observed = || measured.pcrs.iter().find(|seen| seen.pcr == pcr).map(|seen| &seen.value);
        let value = if pcr == IMA_PCR { Some(ima) } else { observed() };
        let value = value.filter(|value| value.alg() == HashAlg::Sha256);
        values.extend_from_slice(value.ok_or(ChannelRejection::MeasurementsDiffer)?.as_bytes());
    }
    Ok(crate::envelope::sha256(&values))
}
