//! Challenges, and the appraisal of hosts: a good verdict brings a session certificate.

use std::time::Duration;

use attest::{
    host::{EnrolledAk, HostPolicy, HostRoot, appraise_host},
    result::Assurance,
};
use aws_lc_rs::digest;
use axum::extract::State;
use http::StatusCode;
use model::{
    Digest, HostId,
    api::{
        Bytes,
        enrol::{
            Challenge, ChallengePurpose, ChallengeRequest, HostEvidence, HostMode, HostSession,
        },
    },
};
use pki::Profile;
use serve::{
    hpke::{self, HpkePublic},
    random,
};
use thiserror::Error;
use tpm::Public;

use super::{
    Length, Route, Who,
    enrol::subject_of,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
};
use crate::{
    app::{App, lock},
    audit::{Actor, Done},
    caller::{Anyone, CallerRejection},
    exposure,
    failure::Failure,
    lease::{self, GuardRecord},
    nonce::Asker,
    record::host::{GoodStanding, HostRecord, Standing},
    refusal::{Refusal, Rejection},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/challenges",
            (Who::Anyone, "challenge"),
            "Ask for a nonce; one for a guest's evidence needs the host's session",
            Shape::of::<Challenge>(),
            challenge,
        )
        .takes(Shape::of::<ChallengeRequest>()),
        Route::post(
            "/v1/hosts/{host}/attest",
            (Who::Anyone, "host-appraisal"),
            "Have a host's evidence appraised",
            Shape::of::<HostSession>(),
            attest,
        )
        .takes(Shape::of::<HostEvidence>())
        .up_to(Length::Evidence),
    ]
}

/// The clocks differ too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the host's clock is {apart_ms} ms from the authority's, {limit_s} s are allowed")]
pub(crate) struct ClockSkew {
    apart_ms: u64,
    limit_s: u64,
}

impl Rejection for ClockSkew {
    fn name(&self) -> &'static str {
        "clock-skew"
    }

    fn hint(&self) -> &'static str {
        "set the host's clock; `policy.clock_skew_s` is the limit"
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

async fn challenge(
    State(app): State<App>,
    anyone: Anyone,
    Body(request): Body<ChallengeRequest>,
) -> Outcome<Challenge> {
    let subject = subject_of(&request.host);
    let answer = issue(&app, &anyone, request).await;
    Ok(Answer(answer.map_err(|failure| failure.about(subject))?))
}

async fn issue(
    app: &App,
    anyone: &Anyone,
    request: ChallengeRequest,
) -> Result<Challenge, Failure> {
    let (now, policy) = (app.now(), app.policy());
    let asker = match &anyone.host {
        Some(host) if *host == request.host => Asker::Session,
        Some(_) | None => Asker::Anyone,
    };
    if request.purpose == ChallengePurpose::GuestAttest && asker == Asker::Anyone {
        return Err(CallerRejection::SessionMissing.into());
    }
    let apart_ms = now.abs_diff(request.now);
    if apart_ms > policy.clock_skew_s.saturating_mul(1000) {
        return Err(ClockSkew { apart_ms, limit_s: policy.clock_skew_s }.into());
    }
    app.enrolled(&request.host).await?.value.may_attest()?;
    let pcrs = match request.purpose {
        ChallengePurpose::HostAttest => app.references.present()?.pcrs().to_vec(),
        ChallengePurpose::GuestAttest => super::guests::PCRS.to_vec(),
    };
    let nonce = random::nonce()?;
    let expires_at = now.saturating_add(policy.nonce_life_s.saturating_mul(1000));
    lock(&app.nonces).issue(&request.host, asker, request.purpose, nonce, expires_at, now);
    Ok(Challenge { nonce, expires_at, pcrs })
}

async fn attest(
    State(app): State<App>,
    _anyone: Anyone,
    Named(name): Named<HostId>,
    Body(evidence): Body<HostEvidence>,
) -> Outcome<HostSession> {
    let now = app.now();
    let host = app.enrolled(&name).await?.value;
    host.may_attest()?;
    // The nonce is spent whatever comes of the evidence.
    let taken = lock(&app.nonces).take(&name, &evidence.nonce, ChallengePurpose::HostAttest, now);
    let challenge = taken?;
    let sealable = hpke::seal(&HpkePublic(evidence.grant_key.0.clone()), b"", b"", b"");
    sealable.map_err(|_| Failure::refused(Refusal::invalid("grant_key is not a P-256 point")))?;
    let policy = host_policy(&app, &host)?;
    let appraised = match appraise_host(&evidence, &policy, &challenge, now) {
        Ok(appraised) => appraised,
        Err(rejected) => {
            let refusal = Refusal::from(rejected.first().clone());
            // Only what the enrolled TPM signed for this nonce says anything about the host.
            let genuine = |claim: &attest::result::Claim| claim.passed && claim.name == "binding";
            if rejected.result().claims.iter().any(genuine) {
                let bad = Some(rejected.sign(&*app.keys.signer)?.to_value());
                let refused = Some(refusal.clone());
                turned_bad(&app, &host, Standing { at: now, refused, good: None, bad }).await?;
            }
            return Err(Failure::refused(refusal));
        }
    };
    let verdict = appraised.sign(&*app.keys.signer)?.to_value();
    let (digest, expires_at) = (appraised.verdict_digest(), appraised.expires_at());
    let profile = Profile::HostSession { host: name.clone(), verdict: digest };
    let lifetime = Duration::from_millis(expires_at.saturating_sub(now));
    let session = app.keys.session(&profile, &evidence.session_key.0, app.date(), lifetime);
    let certificate = session.map_err(|_| {
        Failure::refused(Refusal::invalid("session_key is not a P-256 SubjectPublicKeyInfo"))
    })?;
    let lease_until = now.saturating_add(app.policy().lease_s.saturating_mul(1000));
    let good = GoodStanding {
        verdict: verdict.clone(),
        digest,
        session_key: evidence.session_key.clone(),
        grant_key: evidence.grant_key.clone(),
        services: super::services::measured(&appraised.facts().components),
        fresh_until: expires_at,
        lease_until,
    };
    let standing = Standing { at: now, refused: None, good: Some(good), bad: None };
    let host = settle(&app, &name, standing, Some((&policy, &evidence))).await?;
    let guard = match (host.mode, &host.guard, evidence.guard_counter) {
        (HostMode::Enforcing, Some(record), Some(_)) => {
            let left = lease_until.saturating_sub(now);
            lease::approve(&app.keys.signer, &name, &evidence, record, left)?
        }
        _ => None,
    };
    app.mark_seen(&name);
    let done = Done::new("host-appraised", subject_of(&name)).detail(format!("verdict {digest}"));
    app.audit.done(&Actor::anyone(), done).await?;
    let certificate = Bytes(certificate);
    let mode = host.mode;
    Ok(Answer(HostSession { verdict, certificate, expires_at, lease_until, mode, guard }))
}

/// Ends the host's good standing. VMs are marked before and after: one that came to the host in
/// between is marked too, and a crash leaves a mark too many rather than one too few.
async fn turned_bad(app: &App, host: &HostRecord, standing: Standing) -> Result<(), Failure> {
    let reason = standing.refused.as_ref().map_or("", |refused| &refused.name).to_owned();
    let Some(since) = exposure::last_good(host) else {
        settle(app, &host.name, standing, None).await?;
        return Ok(());
    };
    exposure::mark(app, &host.name, since, &reason).await?;
    settle(app, &host.name, standing, None).await?;
    exposure::mark(app, &host.name, since, &reason).await
}

/// Writes what came of an appraisal, unless the host was revoked meanwhile. A good one moves on what
/// approvals for the host's guard stand on.
async fn settle(
    app: &App,
    name: &HostId,
    standing: Standing,
    good: Option<(&HostPolicy, &HostEvidence)>,
) -> Result<HostRecord, Failure> {
    app.change_enrolled(name, |host| {
        host.may_attest()?;
        let mut after = host.clone().appraised(standing.clone());
        if let Some((policy, evidence)) = good
            && let Some(counter) = evidence.guard_counter
        {
            let generation = app.policy_view().generation;
            let reference = policy.reference.digest();
            let before = after.guard.as_ref();
            after.guard = Some(GuardRecord::next(before, counter, generation, reference));
        }
        Ok(after)
    })
    .await
}

fn host_policy(app: &App, host: &HostRecord) -> Result<HostPolicy, Failure> {
    let identity = &host.identity;
    let ak = Public::parse(&identity.ak_public.0).map_err(|_| Failure::broken("AK record"))?;
    Ok(HostPolicy {
        host: host.name.clone(),
        ak: EnrolledAk::admit(ak)?,
        root: HostRoot {
            ek_subject: format!("EK {}", identity.ek_fingerprint),
            ek_fingerprint: sha256(&identity.ek_certificate.0),
            ek_issuer: identity.ek_issuer.clone(),
            ak_fingerprint: sha256(&identity.ak_certificate.0),
            // Where software TPMs are taken, nothing is called hardware.
            assurance: if app.config.allow_software_tpm {
                Assurance::Software
            } else {
                Assurance::Hardware
            },
        },
        reference: app.references.present()?,
        lifetime_ms: app.policy().session_life_s.saturating_mul(1000),
    })
}

/// SHA-256 as a digest with its algorithm.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    let hash = digest::digest(&digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    Digest::sha256(out)
}
