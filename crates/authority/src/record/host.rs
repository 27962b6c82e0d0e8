//! Hosts: enrolled once, approved by an operator, trusted while their last verdict is good and
//! fresh.
//!
//! ```text
//! enrol ─► pending ─► enforcing ◄─► audit-only
//!    ▲        └────────────┴────────────┴──► revoked (retired, after it was drained)
//!    └── another TPM takes the place of this one ([`leaving`])
//! ```
//! **Invariants:** an enrolled EK and AK change under a name only by an operator's replacement
//! and another approval; a revoked host never comes
//! back; only an enforcing host with a good verdict that is fresh may hold keys.

use http::StatusCode;
use model::{
    Digest, HostId,
    api::{Bytes, enrol::HostMode, service::Service},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::refusal::{Refusal, Rejection};

mod leaving;

/// A host as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostRecord {
    /// Its name.
    pub(crate) name: HostId,
    /// Whether it may hold keys.
    pub(crate) mode: HostMode,
    /// What was enrolled.
    pub(crate) identity: Identity,
    /// When it was enrolled.
    pub(crate) enrolled_at: u64,
    /// When it was revoked.
    #[serde(default)]
    pub(crate) revoked_at: Option<u64>,
    /// Whether it takes no new starts.
    #[serde(default)]
    pub(crate) draining: bool,
    /// When the present TPM took the place of another; 0: it is the first.
    #[serde(default)]
    pub(crate) replaced_at: u64,
    /// AK certificates of TPMs that were replaced, with the time.
    #[serde(default)]
    pub(crate) former: Vec<(Bytes, u64)>,
    /// Its last appraisal.
    pub(crate) standing: Option<Standing>,
    /// What its last approval for cached keys stood on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<crate::lease::GuardRecord>,
    /// Number of its spooled events that were taken: the next one's sequence number.
    pub(crate) spool_next: u64,
}

/// The TPM behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// EK certificate, DER.
    pub(crate) ek_certificate: Bytes,
    /// SHA-256 of it, hexadecimal.
    pub(crate) ek_fingerprint: String,
    /// Subject of its issuer.
    pub(crate) ek_issuer: String,
    /// EK public area, TPMT_PUBLIC.
    pub(crate) ek_public: Bytes,
    /// AK public area, TPMT_PUBLIC.
    pub(crate) ak_public: Bytes,
    /// The AK's Name, hexadecimal.
    pub(crate) ak_name: String,
    /// AK certificate by the privacy CA, DER.
    pub(crate) ak_certificate: Bytes,
}

/// What came of the last appraisal whose quote was genuine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Standing {
    /// When.
    pub(crate) at: u64,
    /// What was said no to; absent if the verdict is good.
    pub(crate) refused: Option<Refusal>,
    /// The good verdict and what it is bound to.
    pub(crate) good: Option<GoodStanding>,
    /// The signed bad verdict.
    #[serde(default)]
    pub(crate) bad: Option<serde_json::Value>,
}

impl Standing {
    /// The signed verdict, good or bad.
    pub(crate) fn verdict(&self) -> Option<&serde_json::Value> {
        self.good.as_ref().map(|good| &good.verdict).or(self.bad.as_ref())
    }

    /// How long the lease is that came with a good verdict, seconds; 0 without one.
    pub(crate) fn lease_s(&self) -> u64 {
        self.good.as_ref().map_or(0, |good| good.lease_until.saturating_sub(self.at) / 1000)
    }
}

/// A good verdict and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoodStanding {
    /// The signed attestation result.
    pub(crate) verdict: serde_json::Value,
    /// Digest of its payload.
    pub(crate) digest: Digest,
    /// The attested session key, SubjectPublicKeyInfo.
    pub(crate) session_key: Bytes,
    /// The attested HPKE key that grants are sealed to.
    pub(crate) grant_key: Bytes,
    /// Services whose programs its event log names, all endorsed.
    #[serde(default)]
    pub(crate) services: Vec<Service>,
    /// Until when the verdict counts.
    pub(crate) fresh_until: u64,
    /// Until when keys that the host caches may be used.
    pub(crate) lease_until: u64,
}

/// Why a host is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HostRejection {
    /// It is being drained.
    #[error("the host is being drained: nothing new is started on it")]
    Draining,
    /// It may be watched, but holds no keys.
    #[error("the host is audit-only: it gets verdicts, never keys")]
    AuditOnly,
    /// No operator has approved it.
    #[error("no operator has approved the host")]
    NotApproved,
    /// It still has VMs, or takes starts.
    #[error("the host is not drained: {0}")]
    NotDrained(String),
    /// Its AK is not enrolled.
    #[error("no TPM is enrolled under this name")]
    NotEnrolled,
    /// Its last verdict is bad, too old, or there is none.
    #[error("the host has no good and fresh verdict: {0}")]
    NotTrusted(String),
    /// The session is of a TPM that was replaced.
    #[error("the session is of the TPM that was replaced")]
    Replaced,
    /// Revoked.
    #[error("the host was revoked")]
    Revoked,
    /// Another TPM is enrolled under the name.
    #[error("another TPM is enrolled under this name")]
    Taken,
    /// An operator asked for a name that is not there.
    #[error("there is no host of this name")]
    Unknown,
}

impl Rejection for HostRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::AuditOnly => "host-audit-only",
            Self::Draining => "host-draining",
            Self::NotApproved => "host-not-approved",
            Self::NotDrained(_) => "host-not-drained",
            Self::NotEnrolled => "ak-not-enrolled",
            Self::NotTrusted(_) => "host-not-trusted",
            Self::Replaced => "host-replaced",
            Self::Revoked => "host-revoked",
            Self::Taken => "host-exists",
            Self::Unknown => "host-unknown",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::AuditOnly => "`vouchsafe host approve NAME` makes it enforcing",
            Self::Draining => "`vouchsafe host drain NAME --end` lets it take starts again",
            Self::NotApproved => "`vouchsafe host approve NAME`",
            Self::NotDrained(_) => {
                "`vouchsafe host drain NAME --stop`; delete or fence the VMs that are homed there"
            }
            Self::NotEnrolled => "enrol the host with a token first",
            Self::NotTrusted(_) => "`vouchsafe host show NAME` has the last verdict",
            Self::Replaced => "attest with the TPM that is enrolled now",
            Self::Revoked => "a revoked host is enrolled anew under another name",
            Self::Taken => "use another name; `vouchsafe host show NAME` has the enrolled TPM",
            Self::Unknown => "`vouchsafe host list`",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Draining | Self::NotDrained(_) | Self::Taken => StatusCode::CONFLICT,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::AuditOnly
            | Self::NotApproved
            | Self::NotEnrolled
            | Self::NotTrusted(_)
            | Self::Replaced
            | Self::Revoked => StatusCode::FORBIDDEN,
        }
    }
}

impl HostRecord {
    /// A host whose TPM has just proved to hold EK and AK.
    pub(crate) const fn enrolled(name: HostId, identity: Identity, now: u64) -> Self {
        Self {
            name,
            mode: HostMode::Pending,
            identity,
            enrolled_at: now,
            revoked_at: None,
            draining: false,
            replaced_at: 0,
            former: Vec::new(),
            standing: None,
            guard: None,
            spool_next: 0,
        }
    }

    /// Whether this EK and AK may enrol under this name, which is taken: only the same again.
    ///
    /// # Errors
    /// [`HostRejection::Taken`], [`HostRejection::Revoked`].
    pub(crate) fn admits(&self, ek_public: &[u8], ak_public: &[u8]) -> Result<(), HostRejection> {
        if self.mode == HostMode::Revoked {
            return Err(HostRejection::Revoked);
        }
        let same = self.identity.ek_public.0 == ek_public && self.identity.ak_public.0 == ak_public;
        if same { Ok(()) } else { Err(HostRejection::Taken) }
    }

    /// An operator's approval, or its change.
    ///
    /// # Errors
    /// [`HostRejection::Revoked`].
    pub(crate) fn approved(mut self, audit_only: bool) -> Result<Self, HostRejection> {
        if self.mode == HostMode::Revoked {
            return Err(HostRejection::Revoked);
        }
        self.mode = if audit_only { HostMode::AuditOnly } else { HostMode::Enforcing };
        Ok(self)
    }

    /// The host after its revocation; repeatable.
    pub(crate) fn revoked(mut self, now: u64) -> Self {
        self.mode = HostMode::Revoked;
        self.revoked_at = self.revoked_at.or(Some(now));
        self.standing = None;
        self
    }

    /// The host after an explicit restore: what was known of it may be out of date, so that an
    /// operator approves it again and it attests again.
    pub(crate) fn restored(mut self) -> Self {
        if self.mode != HostMode::Revoked {
            self.mode = HostMode::Pending;
        }
        self.standing = None;
        self
    }

    /// Whether its evidence is appraised at all.
    ///
    /// # Errors
    /// [`HostRejection`].
    pub(crate) const fn may_attest(&self) -> Result<(), HostRejection> {
        match self.mode {
            HostMode::Pending => Err(HostRejection::NotApproved),
            HostMode::Revoked => Err(HostRejection::Revoked),
            HostMode::Enforcing | HostMode::AuditOnly => Ok(()),
        }
    }

    /// The host after an appraisal. A bad one ends the good standing that there was.
    pub(crate) fn appraised(mut self, standing: Standing) -> Self {
        self.standing = Some(standing);
        self
    }

    /// Its good verdict, if that counts at `now`.
    ///
    /// # Errors
    /// [`HostRejection::NotTrusted`] with the reason, or what the mode says.
    pub(crate) fn trusted(&self, now: u64) -> Result<&GoodStanding, HostRejection> {
        self.may_attest()?;
        let no = |why: &str| Err(HostRejection::NotTrusted(why.to_owned()));
        let Some(standing) = &self.standing else { return no("it has not attested yet") };
        if let Some(refused) = &standing.refused {
            return no(&format!("{}: {}", refused.name, refused.detail));
        }
        match &standing.good {
            Some(good) if now < good.fresh_until => Ok(good),
            Some(_) => no("its last good verdict is too old"),
            None => no("it has not attested yet"),
        }
    }

    /// Its good verdict, if it may hold keys at `now`.
    ///
    /// # Errors
    /// [`HostRejection`].
    pub(crate) fn may_hold_keys(&self, now: u64) -> Result<&GoodStanding, HostRejection> {
        match self.mode {
            HostMode::AuditOnly => Err(HostRejection::AuditOnly),
            HostMode::Enforcing | HostMode::Pending | HostMode::Revoked => self.trusted(now),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn host(name: &str) -> HostRecord {
        let identity = Identity {
            ek_certificate: Bytes(vec![1]),
            ek_fingerprint: String::new(),
            ek_issuer: String::new(),
            ek_public: Bytes(vec![2]),
            ak_public: Bytes(vec![3]),
            ak_name: String::new(),
            ak_certificate: Bytes(vec![4]),
        };
        HostRecord::enrolled(name.parse().unwrap(), identity, 0)
    }

    pub(crate) fn good(fresh_until: u64) -> Standing {
        Standing {
            at: 0,
            refused: None,
            bad: None,
            good: Some(GoodStanding {
                verdict: serde_json::Value::Null,
                digest: Digest::sha256([0; 32]),
                session_key: Bytes(vec![5]),
                grant_key: Bytes(vec![6]),
                services: vec![Service::Trust],
                fresh_until,
                lease_until: fresh_until,
            }),
        }
    }

    fn name_of<T: std::fmt::Debug>(result: Result<T, HostRejection>) -> &'static str {
        result.unwrap_err().name()
    }

    #[test]
    fn a_lease_is_as_long_as_it_was_when_it_was_given() {
        let given = Standing { at: 10_000, ..good(100_000) };
        assert_eq!(given.lease_s(), 90);
        assert_eq!(Standing { good: None, ..given }.lease_s(), 0);
    }

    #[test]
    fn only_an_enforcing_host_with_a_fresh_good_verdict_may_hold_keys() {
        let pending = host("a").appraised(good(10));
        assert_eq!(name_of(pending.may_hold_keys(1)), "host-not-approved");
        let watched = pending.clone().approved(true).unwrap();
        assert_eq!(name_of(watched.may_hold_keys(1)), "host-audit-only");
        assert!(watched.trusted(1).is_ok());
        let enforcing = pending.approved(false).unwrap();
        assert!(enforcing.may_hold_keys(9).is_ok());
        assert_eq!(name_of(enforcing.may_hold_keys(10)), "host-not-trusted");
        let revoked = enforcing.revoked(1);
        assert_eq!(name_of(revoked.may_hold_keys(1)), "host-revoked");
        assert_eq!(name_of(revoked.approved(false)), "host-revoked");
    }

    #[test]
    fn a_bad_verdict_ends_the_good_one_and_says_why() {
        let refused = Refusal::invalid("PCR 14 has an event that no reference value names");
        let bad = Standing { at: 1, refused: Some(refused), good: None, bad: None };
        let host = host("a").approved(false).unwrap().appraised(good(10)).appraised(bad);
        let said = host.may_hold_keys(2).unwrap_err().to_string();
        assert!(said.contains("PCR 14"), "{said}");
    }

    #[test]
    fn a_name_admits_only_the_tpm_that_has_it() {
        let host = host("a");
        assert_eq!(host.admits(&[2], &[3]), Ok(()));
        assert_eq!(name_of(host.admits(&[2], &[9])), "host-exists");
        assert_eq!(name_of(host.revoked(1).admits(&[2], &[3])), "host-revoked");
        assert_eq!(
            name_of(self::host("a").approved(false).unwrap().trusted(0)),
            "host-not-trusted"
        );
    }
}
