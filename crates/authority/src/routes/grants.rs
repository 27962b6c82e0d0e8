//! Keys on their way: grants out, deposits in.

use attest::{
    Appraised, Guest, Host,
    envelope::{Envelope, Kind},
    result::AttestationResult,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::State;
use model::{
    HashAlg, KeyOrigin, Secret, VmId,
    api::grant::{DepositedKey, GrantAnswer, GrantPurpose, GrantRequest, KeyDeposit},
};
use serve::{
    hpke::{self, Sealed},
    random,
};

use super::{
    Route, Who,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
    vms::subject_of,
};
use crate::{
    app::App,
    audit::Done,
    caller::HostSession,
    failure::Failure,
    grant::{self, GrantRejection, Proof, Terms},
    record::{
        host::HostRecord,
        vm::{KeyState, VmRecord, VmRejection},
    },
    records::{self, GrantRecord, Write},
    refusal::Refusal,
    vmkey::{self, KEY},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/vms/{vm}/grant",
            (Who::Host, "grant"),
            "Ask for a VM's keys of its present epoch",
            Shape::of::<GrantAnswer>(),
            ask,
        )
        .takes(Shape::of::<GrantRequest>()),
        Route::post(
            "/v1/vms/{vm}/key",
            (Who::Host, "key-deposit"),
            "Deposit the master key that the host generated",
            Shape::any(),
            deposit,
        )
        .takes(Shape::of::<KeyDeposit>()),
    ]
}

async fn ask(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(request): Body<GrantRequest>,
) -> Outcome<GrantAnswer> {
    let (host, vm, terms) = settle(&app, &session, &name, &request).await?;
    let now = app.now();
    let for_host = Box::new(host_proof(&app, &host, now)?);
    let proof = match request.purpose {
        GrantPurpose::Boot => Proof::Boot(for_host),
        GrantPurpose::Data => Proof::Data(for_host, Box::new(guest_proof(&app, &vm, now)?)),
    };
    let verdict = host.may_hold_keys(now)?.digest;
    let done = Done::new("grant-issued", subject_of(&name)).detail(format!(
        "{:?} keys of epoch {}, grant {}, verdict {verdict}",
        request.purpose, vm.epoch.0, request.request
    ));
    app.audit.done(&session.actor(), done).await?;
    let vmk = master_key(&app, &vm).await?;
    let grant = grant::seal(proof, terms, &vmk)?;
    let envelope = Envelope::sign(Kind::Grant, &grant, &[&*app.keys.signer])?;
    Ok(Answer(GrantAnswer { grant: envelope.to_value() }))
}

/// Decides, and records the id as used together with what the decision rests on: if host or VM
/// change in between, it is decided again.
async fn settle(
    app: &App,
    session: &HostSession,
    name: &VmId,
    request: &GrantRequest,
) -> Result<(HostRecord, VmRecord, Terms), Failure> {
    loop {
        // A store that cannot be anchored any more grants nothing while the process ends.
        if app.shutdown.is_requested() {
            return Err(Failure::broken("the authority is ending"));
        }
        let now = app.now();
        let host = app.enrolled(session.name()).await?;
        host.value.may_hold_keys(now)?;
        let vm = app.vm(name).await?;
        let used = app.records.get(&records::grant(request.request)?).await?.is_some();
        let operation = app.records.get(&records::operation(request.operation)?).await?;
        let terms = grant::decide(&grant::Asked {
            host: &host.value,
            vm: &vm.value,
            request,
            operation: operation.as_ref().map(|operation| &operation.value),
            used,
            policy: &app.policy(),
            now,
            incarnation: app.incarnation,
            restored: app.restored,
        })?;
        let record = GrantRecord {
            vm: name.clone(),
            host: session.name().clone(),
            epoch: request.epoch,
            purpose: request.purpose,
            operation: request.operation,
            verdict: host.value.may_hold_keys(now)?.digest,
            at: now,
        };
        let after = terms.vm().clone();
        let write = Write::new()
            .put(records::grant(request.request)?, &record, 0)?
            .put(records::vm(name)?, &after, vm.version)?
            .only_if(records::host(session.name())?, host.version);
        if app.records.commit(write).await? {
            return Ok((host.value, after, terms));
        }
    }
}

/// The host's verdict again, from what the authority signed when it appraised it.
pub(crate) fn host_proof(
    app: &App,
    host: &HostRecord,
    now: u64,
) -> Result<Appraised<Host>, Failure> {
    let good = host.trusted(now)?;
    let envelope = Envelope::from_value(&good.verdict)?;
    let signed = envelope.verify::<AttestationResult>(&app.keys.own, Kind::Verdict, 1)?;
    Ok(Appraised::<Host>::reopen(signed, now)?)
}

fn guest_proof(app: &App, vm: &VmRecord, now: u64) -> Result<Appraised<Guest>, Failure> {
    let none = || GrantRejection::Guest("it was not appraised".to_owned());
    let guest = vm.guest.as_ref().ok_or_else(none)?;
    let envelope = Envelope::from_value(&guest.verdict)?;
    let signed = envelope.verify::<AttestationResult>(&app.keys.own, Kind::Verdict, 1)?;
    Ok(Appraised::<Guest>::reopen(signed, now)?)
}

async fn master_key(app: &App, vm: &VmRecord) -> Result<Secret<[u8; KEY]>, Failure> {
    let wrapped = app.records.get(&records::vmkey(&vm.spec.name)?).await?;
    let wrapped = wrapped.ok_or(VmRejection::KeyAwaited)?;
    Ok(vmkey::unwrap(&app.keys.vmk_wrap, &vm.kmi(), &wrapped.value.0)?)
}

async fn deposit(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(deposit): Body<KeyDeposit>,
) -> Outcome<()> {
    let brought = deposit.key.as_ref().map(|key| opened(&app, &name, key)).transpose()?;
    loop {
        let now = app.now();
        app.enrolled(session.name()).await?.value.may_hold_keys(now)?;
        let vm = app.vm(&name).await?;
        vm.value.is_home(session.name())?;
        if vm.value.key == KeyState::Awaited && !fits_origins(&vm.value, &deposit) {
            let what = "the deposit is not what the VM's origins leave to its host";
            return Err(Failure::refused(Refusal::invalid(what)));
        }
        let (operation, key_id) = (deposit.operation, deposit.key_id);
        let after = match vm.value.deposited(session.name(), operation, key_id) {
            Ok(after) => after,
            // The answer to the same deposit was lost.
            Err(VmRejection::KeyDeposited)
                if is_held(&app, &vm.value, &deposit, brought.as_ref()).await? =>
            {
                return Ok(Answer(()));
            }
            Err(rejection) => return Err(rejection.into()),
        };
        let own = match &brought {
            Some(_) => None,
            None => Some(master_key(&app, &vm.value).await?),
        };
        let vmk = brought.as_ref().or(own.as_ref()).ok_or(VmRejection::KeyAwaited)?;
        let wrapped = vmkey::wrap(&app.keys.vmk_wrap, random::bytes()?, &after.kmi(), vmk)?;
        let held = app.records.get(&records::vmkey(&name)?).await?.map_or(0, |held| held.version);
        let write = Write::new().put(records::vm(&name)?, &after, vm.version)?.put(
            records::vmkey(&name)?,
            &wrapped.into(),
            held,
        )?;
        if app.records.commit(write).await? {
            let (key, kmi) = (after.spec.origin, after.spec.kmi_origin);
            let detail = format!("key {} by {key:?}, its KMI by {kmi:?}", after.key_id);
            let done = Done::new("key-deposited", subject_of(&name)).detail(detail);
            app.audit.done(&session.actor(), done).await?;
            return Ok(Answer(()));
        }
    }
}

/// The master key that a host generated.
fn opened(app: &App, name: &VmId, key: &DepositedKey) -> Result<Secret<[u8; KEY]>, Failure> {
    let info = format!("vouchsafe:vmk-deposit:v1:{name}");
    let sealed = Sealed { enc: key.enc.0.clone(), ciphertext: key.sealed.0.clone() };
    let invalid = || Failure::refused(Refusal::invalid("the deposit cannot be opened"));
    let opened = hpke::open(&app.keys.deposit, &sealed, info.as_bytes(), b"");
    let opened = opened.map_err(|_| invalid())?;
    let vmk: [u8; KEY] = opened.expose().as_slice().try_into().map_err(|_| invalid())?;
    Ok(Secret::new(vmk))
}

/// Whether a deposit brings exactly what the VM's origins leave to its host.
fn fits_origins(vm: &VmRecord, deposit: &KeyDeposit) -> bool {
    let key = deposit.key.is_some() == (vm.spec.origin != KeyOrigin::Console);
    let kmi = deposit.key_id.is_some() == vm.spec.kmi_origin.is_host();
    let named = deposit.key_id.is_none_or(|id| id.alg() == HashAlg::Sha256);
    let something = deposit.key.is_some() || deposit.key_id.is_some();
    key && kmi && named && something
}

/// Whether this very deposit is held and no grant was made of it.
async fn is_held(
    app: &App,
    vm: &VmRecord,
    deposit: &KeyDeposit,
    brought: Option<&Secret<[u8; KEY]>>,
) -> Result<bool, Failure> {
    let named = deposit.key_id.is_none_or(|id| id == vm.key_id);
    if vm.key != KeyState::Held || !named || !fits_origins(vm, deposit) {
        return Ok(false);
    }
    let Some(brought) = brought else { return Ok(true) };
    let held = master_key(app, vm).await?;
    Ok(verify_slices_are_equal(held.expose(), brought.expose()).is_ok())
}
