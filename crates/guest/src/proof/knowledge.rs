//! What a trust service says about the age of its knowledge, and what the client holds against it: a
//! service that was taken over may say what it likes, but not sign a CA's revocation list.
//!
//! **Invariants:** a moment ahead of this clock is never believed; where the VM's owner named CAs, a
//! *Valid* of theirs counts only with a list that the CA itself signed, that stands now, is not older
//! than one that was seen, and does not name the certificate; and no *Valid* counts whose issuer
//! cannot be told, because the certificate of the key is not shown. Not covered: lists that came
//! before this process began, a CA that publishes nothing new, and a certificate that a service forged
//! under the name of a CA which was not named.

use std::path::Path;

use pki::{CertFacts, CertRejection, Crl, CrlRejection};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use xkms::dsig::PublicKey;

use crate::{
    algorithms::blocks,
    config::{Config, ConfigError, read_bounded},
    messages::{Found, Read},
};

/// How far clocks may be apart.
const SKEW: Duration = Duration::minutes(5);
/// Longest file of CA certificates, bytes.
const ISSUERS: u64 = 256 << 10;

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KnowledgeRejection {
    /// A limit is set, and the service does not say how old its knowledge is.
    #[error("the service does not say how old its knowledge is")]
    Missing,
    /// Older than the limit.
    #[error("the service's knowledge is older than `max_age_s` allows")]
    TooOld,
    /// Ahead of the clock.
    #[error("the service claims to know the future: its clock or its word is wrong")]
    Future,
    /// Valid, says the service, and shows no certificate of the key: whose list would bear it out?
    #[error("the service says Valid and shows no certificate of this key that can be read")]
    NoCertificate,
    /// The CA's list.
    #[error("the revocation list of the CA does not bear the answer out: {0}")]
    Crl(#[from] CrlRejection),
    /// Valid, says the service; revoked, says the CA.
    #[error("the service says Valid of a certificate that its CA has revoked")]
    Contradicted,
}

impl KnowledgeRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "knowledge-missing",
            Self::TooOld => "knowledge-too-old",
            Self::Future => "knowledge-from-the-future",
            Self::NoCertificate => "knowledge-without-certificate",
            Self::Crl(why) => why.code(),
            Self::Contradicted => "knowledge-contradicted",
        }
    }
}

/// What answers are held against.
#[derive(Debug, Default)]
pub struct Judge {
    max_age: Option<Duration>,
    issuers: Vec<Issuer>,
}

/// A CA whose lists are demanded.
#[derive(Debug)]
struct Issuer {
    certificate: Vec<u8>,
    name: String,
    /// When the newest list that was seen was made.
    newest: Option<OffsetDateTime>,
}

/// Why there is no judge.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// The file of CA certificates.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// One of them.
    #[error("a certificate of `crl_issuers` cannot be used")]
    Certificate(#[from] CertRejection),
}

impl Judge {
    /// As configured.
    ///
    /// # Errors
    /// [`JudgeError`].
    pub fn new(config: &Config) -> Result<Self, JudgeError> {
        let issuers = config.crl_issuers.as_deref().map(issuers).transpose()?;
        let max_age = config.max_age_s.map(|s| Duration::seconds(s.into()));
        Ok(Self { max_age, issuers: issuers.unwrap_or_default() })
    }

    /// Whether a CA's list is needed to judge answers.
    #[must_use]
    pub const fn wants_crl(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Judges an answer, with the lists (DER) that came in it.
    ///
    /// # Errors
    /// [`KnowledgeRejection`].
    pub fn judge(
        &mut self,
        read: &Read,
        crls: &[Vec<u8>],
        now: OffsetDateTime,
    ) -> Result<(), KnowledgeRejection> {
        self.age(read, now)?;
        read.bindings.iter().try_for_each(|found| self.status(found, crls, now))
    }

    fn age(&self, read: &Read, now: OffsetDateTime) -> Result<(), KnowledgeRejection> {
        let Some(knowledge) = &read.knowledge else {
            // Refusals carry none, and nothing is believed of them.
            let needed = read.success && self.max_age.is_some();
            return if needed { Err(KnowledgeRejection::Missing) } else { Ok(()) };
        };
        let as_of = Duration::milliseconds(i64::try_from(knowledge.as_of).unwrap_or(i64::MAX));
        let age = Duration::seconds(now.unix_timestamp()).saturating_sub(as_of);
        if age < -SKEW {
            return Err(KnowledgeRejection::Future);
        }
        if self.max_age.is_some_and(|most| age > most) {
            return Err(KnowledgeRejection::TooOld);
        }
        Ok(())
    }

    fn status(
        &mut self,
        found: &Found,
        crls: &[Vec<u8>],
        now: OffsetDateTime,
    ) -> Result<(), KnowledgeRejection> {
        if found.status.as_deref() != Some("Valid") || !self.wants_crl() {
            return Ok(());
        }
        let leaf = leaf(found).ok_or(KnowledgeRejection::NoCertificate)?;
        let issuer = self.issuers.iter_mut().find(|one| one.name == leaf.issuer);
        let Some(issuer) = issuer else { return Ok(()) };
        let mut why = CrlRejection::Missing;
        for der in crls {
            match Crl::verify(der, &issuer.certificate, now) {
                Ok(crl) => return issuer.holds(&crl, &leaf),
                Err(CrlRejection::Issuer) => {}
                Err(other) => why = other,
            }
        }
        Err(why.into())
    }
}

impl Issuer {
    fn holds(&mut self, crl: &Crl, leaf: &CertFacts) -> Result<(), KnowledgeRejection> {
        if self.newest.is_some_and(|seen| crl.this_update() < seen) {
            return Err(CrlRejection::RolledBack.into());
        }
        self.newest = Some(crl.this_update());
        if crl.is_revoked(&leaf.serial) {
            return Err(KnowledgeRejection::Contradicted);
        }
        Ok(())
    }
}

/// The certificate of the key that was found: the first one, and no other, so that none is shown in its
/// place.
fn leaf(found: &Found) -> Option<CertFacts> {
    let leaf = CertFacts::read(&found.certificates.first()?.0).ok()?;
    let shown = || PublicKey::from_spki(&leaf.spki).map(|key| key.to_spki());
    let same = found.key.as_ref().is_none_or(|key| shown().as_ref() == Some(&key.0));
    same.then_some(leaf)
}

fn issuers(path: &Path) -> Result<Vec<Issuer>, JudgeError> {
    let text = read_bounded(path, ISSUERS)?;
    let issuer = |der: &[u8]| {
        let name = CertFacts::read(der)?.subject;
        Ok(Issuer { certificate: der.to_vec(), name, newest: None })
    };
    blocks(&text).iter().map(|der| issuer(der)).collect()
}

#[cfg(test)]
mod tests {
    use model::{api::Bytes, keys::Knowledge};
    use pki::{Ca, CaSpec, Profile, Revocation, RevocationReason, Validity};

    use super::*;

    const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
    const NOW: OffsetDateTime = time::macros::datetime!(2026-06-01 12:00 UTC);

    fn read(status: &str, certificate: &[u8], as_of: OffsetDateTime) -> Read {
        let as_of = u64::try_from(as_of.unix_timestamp()).unwrap() * 1000;
        let certificates = vec![Bytes(certificate.to_vec())];
        let status = Some(status.to_owned());
        Read {
            success: true,
            result: "Success".to_owned(),
            bindings: vec![Found { certificates, status, ..Found::default() }],
            knowledge: Some(Knowledge::own(as_of)),
        }
    }

    fn name_of(outcome: Result<(), KnowledgeRejection>) -> &'static str {
        outcome.map_or_else(KnowledgeRejection::code, |()| "believed")
    }

    #[test]
    fn the_age_that_is_claimed_is_held_against_the_limit_and_the_clock() {
        let mut judge = Judge { max_age: Some(Duration::hours(1)), issuers: Vec::new() };
        for (age, expected) in [
            (Duration::ZERO, "believed"),
            (Duration::minutes(59), "believed"),
            (Duration::minutes(61), "knowledge-too-old"),
            (Duration::minutes(-4), "believed"),
            (Duration::minutes(-6), "knowledge-from-the-future"),
        ] {
            let read = read("Valid", b"", NOW - age);
            assert_eq!(name_of(judge.judge(&read, &[], NOW)), expected, "{age}");
        }
        let mut silent = read("Valid", b"", NOW);
        silent.knowledge = None;
        assert_eq!(name_of(judge.judge(&silent, &[], NOW)), "knowledge-missing");
        silent.success = false;
        assert_eq!(name_of(judge.judge(&silent, &[], NOW)), "believed");
        let mut claims = read("Valid", b"", NOW);
        claims.knowledge = Some(Knowledge::own(u64::MAX));
        let outcome = Judge::default().judge(&claims, &[], NOW);
        assert_eq!(name_of(outcome), "knowledge-from-the-future");
    }

    #[test]
    fn a_service_that_hides_a_revocation_is_found_out_by_the_ca_s_own_list() {
        let spec = |name: &str| CaSpec {
            common_name: name.to_owned(),
            path_length: 0,
            validity: Validity::new(NOW - Duration::days(9), HOUR * 24 * 90),
        };
        let (ca, _) = Ca::create_root(&spec("one")).unwrap();
        let (other, _) = Ca::create_root(&spec("other")).unwrap();
        let key = xkms::dsig::SigningKey::generate_ec(xkms::dsig::Curve::P256).unwrap();
        let spki = xkms::dsig::Signer::public_key(&key).unwrap().to_spki();
        let profile = Profile::Client { operator: "web".to_owned() };
        let day = |from| Validity::new(from, HOUR * 24);
        let leaf = ca.issue(&profile, &spki, day(NOW)).unwrap();
        let reason = RevocationReason::KeyCompromise;
        let revoked = [Revocation { serial: leaf.serial, at: NOW, reason }];
        let list = |ca: &Ca, from, revoked: &[_]| ca.issue_crl(1, day(from), revoked).unwrap();
        let clean = list(&ca, NOW - HOUR, &[]);
        let fresh = list(&ca, NOW, &[]);
        let mut forged = fresh.clone();
        *forged.last_mut().unwrap() ^= 1;

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cas.pem");
        let body =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca.certificate());
        let text = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        std::fs::write(&file, text).unwrap();
        let config = Config { crl_issuers: Some(file), ..Config::default() };
        let mut judge = Judge::new(&config).unwrap();
        assert!(judge.wants_crl());
        let valid = read("Valid", &leaf.der, NOW);
        let mut judged = |crls: &[Vec<u8>]| name_of(judge.judge(&valid, crls, NOW));
        assert_eq!(judged(&[]), "crl-missing", "withheld");
        assert_eq!(judged(&[list(&other, NOW, &[])]), "crl-missing", "another CA's");
        assert_eq!(judged(&[forged]), "crl-signature");
        assert_eq!(judged(&[list(&ca, NOW - HOUR * 48, &[])]), "crl-stale");
        assert_eq!(judged(&[fresh]), "believed");
        assert_eq!(judged(&[clean]), "crl-rolled-back", "one that was seen is newer");
        assert_eq!(judged(&[list(&ca, NOW, &revoked)]), "knowledge-contradicted");
        let invalid = read("Invalid", &leaf.der, NOW);
        assert_eq!(name_of(judge.judge(&invalid, &[], NOW)), "believed");
        // Nor is it got round by showing nothing, or what is another key's.
        let another = xkms::dsig::SigningKey::generate_ec(xkms::dsig::Curve::P256).unwrap();
        let (none, mut other_key) = (read("Valid", b"no DER", NOW), valid.clone());
        let mut nothing = none.clone();
        nothing.bindings[0].certificates.clear();
        other_key.bindings[0].key =
            Some(Bytes(xkms::dsig::Signer::public_key(&another).unwrap().to_spki()));
        for read in [none, nothing, other_key] {
            let outcome = judge.judge(&read, &[list(&ca, NOW, &[])], NOW);
            assert_eq!(name_of(outcome), "knowledge-without-certificate");
            assert_eq!(name_of(Judge::default().judge(&read, &[], NOW)), "believed");
        }
    }
}
