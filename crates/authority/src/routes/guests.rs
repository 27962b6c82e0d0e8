//! Virtual TPMs and the guests in them: certification once an epoch, appraisal as often as asked.

use attest::{
    guest::{GuestPolicy, VtpmBinding, appraise_guest},
    host::check_ak_attributes,
};
use axum::extract::State;
use model::{
    Digest, VmId,
    api::{
        Bytes,
        enrol::ChallengePurpose,
        vm::{EvidenceExport, GuestEvidence, GuestVerdict, VtpmCertificates, VtpmPublics},
    },
};
use pki::{Profile, tcg::TpmModel};
use serve::fsfile;
use tpm::{Attributes, Public};

use super::{
    Length, Route, Who,
    attest::sha256,
    gate::{Answer, Body, Named, Outcome},
    grants::host_proof,
    shape::Shape,
    vms::{prediction, subject_of},
};
use crate::{
    app::{App, lock},
    audit::Done,
    caller::{HostSession, Operator},
    failure::Failure,
    grant::GrantRejection,
    keyring::Keyring,
    record::vm::{GuestStanding, VmRecord, VmRejection},
    records::{self, Write},
    refusal::Refusal,
};

/// PCRs that a guest's quote must cover, besides those that were extended.
pub(super) const PCRS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// PCRs that a reference may leave open: boot variables, and what IMA measures of the software that
/// runs, which the server's trust service appraises before it serves the guest.
const UNPREDICTED: [u8; 2] = [1, 10];

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/vms/{vm}/vtpm",
            (Who::Host, "vtpm-certification"),
            "Certify a VM's virtual TPM",
            Shape::of::<VtpmCertificates>(),
            certify,
        )
        .takes(Shape::of::<VtpmPublics>()),
        Route::post(
            "/v1/vms/{vm}/evidence",
            (Who::Host, "guest-appraisal"),
            "Have a guest's evidence appraised; a bad verdict is an answer, not a problem",
            Shape::of::<GuestVerdict>(),
            evidence,
        )
        .takes(Shape::of::<GuestEvidence>())
        .up_to(Length::Guest),
        Route::get(
            "/v1/vms/{vm}/verdict",
            (Who::Operator, "vm-verdict"),
            "Show the last verdict about a guest",
            Shape::of::<GuestVerdict>(),
            verdict,
        ),
        Route::get(
            "/v1/vms/{vm}/evidence",
            (Who::Operator, "vm-evidence"),
            "Export the last appraised evidence with what verifies it",
            Shape::of::<EvidenceExport>(),
            export,
        ),
    ]
}

async fn certify(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(publics): Body<VtpmPublics>,
) -> Outcome<VtpmCertificates> {
    loop {
        let host = app.enrolled(session.name()).await?;
        host.value.may_hold_keys(app.now())?;
        let vm = app.vm(&name).await?;
        vm.value.is_homed(session.name(), publics.epoch)?;
        if let Some(known) = vm.value.certified(&publics) {
            return Ok(Answer(known.certificates.clone()));
        }
        vm.value.may_certify(session.name(), publics.epoch)?;
        let certificates = issue(&app, &session, &vm.value, &publics)?;
        let after = vm.value.certified_as(publics.clone(), certificates.clone());
        let write = Write::new()
            .put(records::vm(&name)?, &after, vm.version)?
            .only_if(records::host(session.name())?, host.version);
        if app.records.commit(write).await? {
            let detail = format!(
                "epoch {}, EK certificate {}",
                publics.epoch.0,
                sha256(&certificates.ek_certificate.0)
            );
            let done = Done::new("vtpm-certified", subject_of(&name)).detail(detail);
            app.audit.done(&session.actor(), done).await?;
            return Ok(Answer(certificates));
        }
    }
}

fn issue(
    app: &App,
    session: &HostSession,
    vm: &VmRecord,
    publics: &VtpmPublics,
) -> Result<VtpmCertificates, Failure> {
    let (ca, now, name) = (&app.keys.vtpm_ca, app.date(), &vm.spec.name);
    let tpm = TpmModel {
        manufacturer: "id:00001014".to_owned(),
        model: "swtpm".to_owned(),
        version: "id:20191023".to_owned(),
    };
    let ek = Profile::VtpmEk { tpm, vm: name.clone() };
    let ak = Profile::VtpmAk {
        vm: name.clone(),
        epoch: publics.epoch,
        host: app.keys.host_ref(session.name(), name)?,
    };
    let ek_spki = endorsement_key("ek_public", &publics.ek_public)?;
    let ak_public = parse("ak_public", &publics.ak_public)?;
    check_ak_attributes(&ak_public)?;
    let ak_spki = spki("ak_public", &ak_public)?;
    let rsa = match &publics.ek_rsa_public {
        Some(public) => {
            let spki = endorsement_key("ek_rsa_public", public)?;
            Some(Bytes(Keyring::device(ca, &ek, &spki, now)?))
        }
        None => None,
    };
    Ok(VtpmCertificates {
        ek_certificate: Bytes(Keyring::device(ca, &ek, &ek_spki, now)?),
        ek_rsa_certificate: rsa,
        ak_certificate: Bytes(Keyring::device(ca, &ak, &ak_spki, now)?),
        vtpm_ca: Bytes(ca.certificate().to_vec()),
    })
}

fn invalid(what: &str, why: &str) -> Failure {
    Failure::refused(Refusal::invalid(format!("{what} {why}")))
}

fn parse(what: &str, bytes: &Bytes) -> Result<Public, Failure> {
    Public::parse(&bytes.0).map_err(|_| invalid(what, "is malformed"))
}

fn spki(what: &str, public: &Public) -> Result<Vec<u8>, Failure> {
    public.spki_der().map_err(|_| invalid(what, "is not an EC P-256 or RSA key"))
}

/// An EK decrypts, and only what its TPM made or was wrapped for it; it cannot leave the TPM.
fn endorsement_key(what: &str, bytes: &Bytes) -> Result<Vec<u8>, Failure> {
    let public = parse(what, bytes)?;
    let needed = Attributes::RESTRICTED
        .and(Attributes::DECRYPT)
        .and(Attributes::FIXED_TPM)
        .and(Attributes::FIXED_PARENT);
    let attributes = public.attributes();
    if !attributes.contains(needed) || attributes.contains(Attributes::SIGN) {
        return Err(invalid(what, "does not have the attributes of an EK"));
    }
    spki(what, &public)
}

async fn evidence(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(evidence): Body<GuestEvidence>,
) -> Outcome<GuestVerdict> {
    let now = app.now();
    let vm = app.vm(&name).await?;
    vm.value.is_homed(session.name(), evidence.epoch)?;
    let host = host_proof(&app, &session.record().value, now)?;
    let purpose = ChallengePurpose::GuestAttest;
    let taken = lock(&app.nonces).take(session.name(), &evidence.nonce, purpose, now);
    let challenge = taken?;
    let unbound = || attest::Rejection::VtpmBindingInvalid("it was never certified".to_owned());
    let vtpm = vm.value.vtpm.as_ref().ok_or_else(unbound)?;
    let binding = VtpmBinding {
        vm: &name,
        epoch: vm.value.epoch,
        ek_certificate: &vtpm.certificates.ek_certificate.0,
        ak_certificate: &vtpm.certificates.ak_certificate.0,
        vtpm_ca: &app.keys.vtpm_anchors,
    };
    let reference = prediction(&vm.value.spec.reference)?;
    let policy = app.policy();
    let guest_policy = GuestPolicy {
        prediction: &reference,
        may_be_unpredicted: &UNPREDICTED,
        pcrs: &PCRS,
        lifetime_ms: policy.guest_verdict_life_s.saturating_mul(1000),
    };
    let appraised = appraise_guest(&host, &binding, &evidence, &guest_policy, &challenge, now);
    let (envelope, result, refused) = match &appraised {
        Ok(good) => (good.sign(&*app.keys.signer)?, good.result(), None),
        Err(bad) => {
            let refusal = Refusal { detail: bad.to_string(), ..bad.first().clone().into() };
            (bad.sign(&*app.keys.signer)?, bad.result(), Some(refusal))
        }
    };
    let standing = GuestStanding {
        at: now,
        epoch: evidence.epoch,
        verdict: envelope.to_value(),
        digest: result.digest(),
        refused,
        chain: result.chain.clone(),
        evidence: keep(&app, &name, &evidence)?,
    };
    record(&app, &session, &name, &standing).await?;
    let on_bad_guest = Some(app.policy().on_bad_guest);
    Ok(Answer(GuestVerdict { on_bad_guest, ..answer(&standing) }))
}

/// Writes the evidence beside the store (it is too long for a record) and returns its digest.
fn keep(app: &App, name: &VmId, evidence: &GuestEvidence) -> Result<Digest, Failure> {
    let json = serde_json::to_vec(evidence)?;
    let digest = sha256(&json);
    fsfile::write_atomic(&app.paths.evidence().join(format!("{name}.json")), &json, 0o600)?;
    Ok(digest)
}

/// Writes the verdict to the VM's record and the audit log.
async fn record(
    app: &App,
    session: &HostSession,
    name: &VmId,
    standing: &GuestStanding,
) -> Result<(), Failure> {
    app.change_vm(name, |vm| {
        vm.is_homed(session.name(), standing.epoch)?;
        Ok::<_, VmRejection>(vm.appraised(standing.clone()))
    })
    .await?;
    let (actor, subject) = (session.actor(), subject_of(name));
    match &standing.refused {
        None => {
            let detail = format!("verdict {}", standing.digest);
            app.audit.done(&actor, Done::new("guest-appraised", subject).detail(detail)).await?;
        }
        Some(refusal) => {
            app.audit.refused(&actor, "guest-appraised", &subject, refusal).await?;
        }
    }
    Ok(())
}

fn answer(standing: &GuestStanding) -> GuestVerdict {
    GuestVerdict {
        verdict: standing.verdict.clone(),
        trusted: standing.refused.is_none(),
        refusal: standing.refused.as_ref().map(Refusal::to_wire),
        chain: standing.chain.clone(),
        on_bad_guest: None,
    }
}

async fn last(app: &App, name: &VmId) -> Result<(VmRecord, GuestStanding), Failure> {
    let vm = app.vm(name).await?.value;
    let none = || GrantRejection::Guest("it was not appraised".to_owned());
    let guest = vm.guest.clone().ok_or_else(none)?;
    Ok((vm, guest))
}

async fn verdict(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<GuestVerdict> {
    let (_, guest) = last(&app, &name).await?;
    Ok(Answer(answer(&guest)))
}

async fn export(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<EvidenceExport> {
    let (vm, guest) = last(&app, &name).await?;
    let path = app.paths.evidence().join(format!("{name}.json"));
    let json =
        fsfile::read_limited(&path, app.config.limits.guest_evidence_bytes.saturating_mul(2))?;
    if sha256(&json) != guest.evidence {
        return Err(Failure::broken("the evidence file is not the one that was appraised"));
    }
    let home = vm.home.ok_or(VmRejection::Unknown)?;
    let identity = app.host(&home).await?.value.identity;
    Ok(Answer(EvidenceExport {
        evidence: serde_json::from_slice(&json)?,
        vtpm_ca: Bytes(app.keys.vtpm_ca.certificate().to_vec()),
        ca: Bytes(app.keys.ca.certificate().to_vec()),
        host_ak_certificate: identity.ak_certificate,
        host_ek_certificate: identity.ek_certificate,
        ek_roots: app.ek_roots.certificates.clone(),
        signing_key: Bytes(app.keys.signer.spki().to_vec()),
        verdict: answer(&guest),
    }))
}
