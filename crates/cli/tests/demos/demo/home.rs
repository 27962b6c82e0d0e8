//! A rogue host that is approved and is some VMs' home: what it asks for beyond what it may have.

use model::{
    Epoch, GrantId, OperationId,
    api::{
        enrol::Challenge,
        grant::{GrantAnswer, GrantPurpose, GrantRequest},
        operate::{Operation, OperationUpdate, Outcome},
        vm::{GuestVerdict, VmView, VtpmCertificates, VtpmPublics},
    },
};
use serde_json::json;
use serve::client::Identity;

use super::hosts::expect;
use crate::{checks::Checks, rogue::Rogue, world::World};

/// Two VMs of the rogue's, by their names.
const VMS: [&str; 2] = ["c1", "c2"];

pub fn of_vms(world: &World, checks: &mut Checks, c: &Rogue) {
    checks.part("the third machine is the home of two VMs and asks for more than is its own");
    let operator = operator(world);
    let spec = world.vouchsafe(&["vm", "show", "v1"]).json()["spec"].clone();
    let mut starts = Vec::new();
    for name in VMS {
        let mut wanted = spec.clone();
        wanted["name"] = name.into();
        let started = c.post_as::<_, VmView>(&operator, "/v1/vms", &wanted).and_then(|_| {
            let path = format!("/v1/vms/{name}/start");
            c.post_as::<_, Operation>(&operator, &path, &json!({"host": "c"}))
        });
        starts.push(started);
    }
    let started: Result<Vec<_>, _> = starts.into_iter().collect();
    let session = c.session();
    let (Ok(started), Ok((session, _))) = (started, session) else {
        checks.check("it is their home and has a session", false, "");
        return;
    };
    grants(checks, c, &session, started[0].id);
    another_vms_certificate(checks, c, &session);
    let stopped = world.vouchsafe(&["host", "drain", "c"]);
    let listed = stopped.json()["running"].clone();
    checks.check(
        "drained, it takes no start, and what it has is listed",
        stopped.code == 0,
        listed,
    );
    let said = world.vouchsafe(&["vm", "start", "c2", "--host", "c"]);
    checks.refused("a start on a drained host", "host-draining", &said.refusal(), "");
    let hasty = ["vm", "fence", VMS[0], "--powered-off", "--reason", "in a hurry"];
    let said = world.vouchsafe(&hasty);
    let what = "a fence while the home is heard of, whatever the operator says";
    checks.refused(what, "vm-home-alive", &said.refusal(), "");
    for (name, start) in VMS.iter().zip(&started) {
        let outcome = Outcome::Failed { detail: "no disk".to_owned(), hint: String::new() };
        let update = OperationUpdate { outcome: Some(outcome), ..OperationUpdate::default() };
        let path = format!("/v1/operations/{}", start.id);
        let told: Result<Operation, _> = c.post_as(&session, &path, &update);
        checks.check(&format!("c says that {name} is stopped there"), told.is_ok(), "");
        let path = format!("/v1/vms/{name}/fence");
        let reason = json!({"reason": "the demonstration's rogue is no home"});
        let fenced = c.post_as::<_, VmView>(&operator, &path, &reason);
        checks.check(&format!("{name} is fenced: its epoch moves on"), fenced.is_ok(), "");
    }
    let late: Result<GrantAnswer, _> =
        c.post_as(&session, "/v1/vms/c1/grant", &request(started[0].id, 9));
    expect(checks, "a grant after the epoch moved", "grant-epoch-moved", late);
    for name in VMS {
        let gone = world.vouchsafe(&["vm", "delete", name]);
        checks.check(&format!("{name} is deleted"), gone.code == 0, gone.complaint());
    }
}

/// The lab's operator, as the shell is.
fn operator(world: &World) -> Identity {
    let record = world.record();
    let file = |name: &str| record["authority"][name].as_str().expect("a file").to_owned();
    let files = (file("client_cert"), file("client_key"));
    Identity::read(files.0.as_ref(), files.1.as_ref()).expect("the operator's certificate")
}

fn request(operation: OperationId, id: u8) -> GrantRequest {
    let (request, epoch) = (GrantId([id; 16]), Epoch(1));
    GrantRequest { operation, request, purpose: GrantPurpose::Boot, epoch }
}

/// Keys once for each request.
fn grants(checks: &mut Checks, c: &Rogue, session: &Identity, operation: OperationId) {
    let ask = || c.post_as::<_, GrantAnswer>(session, "/v1/vms/c1/grant", &request(operation, 8));
    let first = ask();
    checks.check("its own VM's keys are granted once", first.is_ok(), "");
    expect(checks, "the same grant again", "grant-used", ask());
}

/// Both vTPMs are certified; one VM's evidence comes with the other one's EK certificate.
fn another_vms_certificate(checks: &mut Checks, c: &Rogue, session: &Identity) {
    let verdict = forged(c, session);
    let (seen, detail) = match verdict {
        Ok(GuestVerdict { refusal: Some(refusal), .. }) => (refusal.name, refusal.detail),
        Ok(_) => ("trusted".to_owned(), String::new()),
        Err(refused) => (refused, String::new()),
    };
    let what = "a vTPM with another VM's EK certificate";
    checks.refused(what, "vtpm-ek-other-vm", &seen, &detail);
}

fn forged(c: &Rogue, session: &Identity) -> Result<GuestVerdict, String> {
    let publics = VtpmPublics {
        epoch: Epoch(1),
        ek_public: c.ek().as_bytes().to_vec().into(),
        ek_rsa_public: None,
        ak_public: c.ak().as_bytes().to_vec().into(),
    };
    let certify = |vm: &str| -> Result<VtpmCertificates, String> {
        c.post_as(session, &format!("/v1/vms/{vm}/vtpm"), &publics)
    };
    let (own, other) = (certify("c1")?, certify("c2")?);
    let challenge: Challenge = c.guest_challenge(session)?;
    let evidence =
        c.guest_evidence(challenge.nonce, "c1", own.ak_certificate, other.ek_certificate);
    c.post_as(session, "/v1/vms/c1/evidence", &evidence)
}
