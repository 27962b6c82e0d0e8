//! VMs as operators define, start, stop, attest, fence, revoke and delete them.

use attest::predict::Prediction;
use axum::extract::State;
use model::{
    HostId, KeyOrigin, KmiOrigin, OperationId, VmId,
    api::{
        audit::Reason,
        operate::{Operation, Outcome as Ended},
        policy::Trace,
        vm::{FenceRequest, StartRequest, VmSpec, VmView},
    },
};
use serve::random;

use super::{
    Length, Route, Who,
    attest::sha256,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
};
use crate::{
    app::App,
    audit::Done,
    caller::Operator,
    failure::Failure,
    grant,
    operations::{self, Wish},
    record::{
        host::Standing,
        vm::{VmRecord, change, fence::Silence},
    },
    records::{self, Write},
    refusal::Refusal,
    trace, vmkey,
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::post(
            "/v1/vms",
            (Who::Operator, "vm-definition"),
            "Define a VM",
            Shape::of::<VmView>(),
            define,
        )
        .takes(Shape::of::<VmSpec>())
        .up_to(Length::Evidence),
        Route::get(
            "/v1/vms",
            (Who::Operator, "vm-list"),
            "List VMs",
            Shape::list::<VmView>(),
            list,
        ),
        Route::get(
            "/v1/vms/{vm}",
            (Who::Operator, "vm-show"),
            "Show a VM",
            Shape::of::<VmView>(),
            show,
        ),
        Route::get(
            "/v1/vms/{vm}/trace",
            (Who::Operator, "vm-trace"),
            "Say which rule decides whether a guest gets its data volume",
            Shape::of::<Trace>(),
            trace,
        ),
        Route::delete(
            "/v1/vms/{vm}",
            (Who::Operator, "vm-deletion"),
            "Delete a VM; answers the operation of its home host, or null if it has none",
            Shape::of::<Operation>(),
            delete,
        ),
        Route::get(
            "/v1/operations/{operation}",
            (Who::Operator, "operation-show"),
            "Follow an operation",
            Shape::of::<Operation>(),
            operation,
        ),
    ];
    routes.extend(wishes());
    routes
}

fn wishes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/vms/{vm}/start",
            (Who::Operator, "vm-start"),
            "Start a VM; the first start makes the host its home",
            Shape::of::<Operation>(),
            start,
        )
        .takes(Shape::of::<StartRequest>()),
        Route::post(
            "/v1/vms/{vm}/stop",
            (Who::Operator, "vm-stop"),
            "Stop a VM",
            Shape::of::<Operation>(),
            stop,
        ),
        Route::post(
            "/v1/vms/{vm}/attest",
            (Who::Operator, "vm-attestation"),
            "Take and appraise fresh evidence of the running guest",
            Shape::of::<Operation>(),
            attest,
        ),
        Route::post(
            "/v1/vms/{vm}/rekey",
            (Who::Operator, "vm-rekey"),
            "Seal the vault volumes of a running VM anew under fresh data keys",
            Shape::of::<Operation>(),
            rekey,
        ),
        Route::post(
            "/v1/vms/{vm}/revoke",
            (Who::Operator, "vm-revocation"),
            "Destroy a VM's keys and have its home host destroy its copies",
            Shape::of::<VmView>(),
            revoke,
        )
        .takes(Shape::of::<Reason>()),
        Route::post(
            "/v1/vms/{vm}/fence",
            (Who::Operator, "vm-fence"),
            "Vouch that a VM's home host is off: the epoch moves and the VM is made anew at its next start",
            Shape::of::<VmView>(),
            fence,
        )
        .takes(Shape::of::<FenceRequest>()),
    ]
}

/// What a VM is called in the audit log.
pub(crate) fn subject_of(vm: &VmId) -> String {
    format!("vm:{vm}")
}

async fn define(
    State(app): State<App>,
    operator: Operator,
    Body(spec): Body<VmSpec>,
) -> Outcome<VmView> {
    let subject = subject_of(&spec.name);
    let about = |failure: Failure| failure.about(subject.clone());
    check_spec(&spec).map_err(|problem| about(Failure::refused(Refusal::invalid(problem))))?;
    let view = create(&app, spec).await.map_err(about)?;
    let detail = format!("key {} by {:?}", view.kmi.key_id, view.spec.origin);
    app.audit
        .done(&operator.actor(), Done::new("vm-defined", subject.clone()).detail(detail))
        .await?;
    Ok(Answer(view))
}

async fn create(app: &App, spec: VmSpec) -> Result<VmView, Failure> {
    // The key's name is never computed from the key: it is the digest of where it comes from or,
    // so that nothing but the VM's blocks is needed to name it, of the VM. A host that makes the
    // KMI replaces it at its deposit.
    let key_id = match spec.kmi_origin {
        KmiOrigin::VmId => sha256(format!("vouchsafe:kmi:v1:{}", spec.name).as_bytes()),
        KmiOrigin::Console | KmiOrigin::Tcb | KmiOrigin::Tpm => {
            let random = hex::encode(random::bytes::<16>()?);
            sha256(&serde_json::to_vec(&(&spec.name, spec.origin, app.now(), random))?)
        }
    };
    loop {
        let before = app.records.get(&records::vm(&spec.name)?).await?;
        let version = before.as_ref().map_or(0, |before| before.version);
        let floor = app.restored.epoch_floor();
        let vm = change::defined(before.as_ref().map(|b| &b.value), spec.clone(), key_id, floor)?;
        let mut write = Write::new().put(records::vm(&spec.name)?, &vm, version)?;
        if spec.origin == KeyOrigin::Console {
            let vmk = random::secret::<{ vmkey::KEY }>()?;
            let wrapped = vmkey::wrap(&app.keys.vmk_wrap, random::bytes()?, &vm.kmi(), &vmk)?;
            let held = app.records.get(&records::vmkey(&spec.name)?).await?;
            let version = held.map_or(0, |held| held.version);
            write = write.put(records::vmkey(&spec.name)?, &wrapped.into(), version)?;
        }
        if app.records.commit(write).await? {
            return Ok(vm.view());
        }
    }
}

/// What is wrong with a specification.
fn check_spec(spec: &VmSpec) -> Result<(), String> {
    let within = |what: &str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) {
            Ok(())
        } else {
            Err(format!("{what} must be between {least} and {most}"))
        }
    };
    within("memory_mib", u64::from(spec.memory_mib), 64, 1 << 20)?;
    within("cpus", u64::from(spec.cpus), 1, 512)?;
    within("data_mib", u64::from(spec.data_mib), 0, 64 << 20)?;
    within("image.size", spec.image.size, 512, 1 << 46)?;
    if !spec.image.size.is_multiple_of(512) {
        return Err("image.size must be a multiple of 512".to_owned());
    }
    if !spec.image.path.starts_with('/') || spec.image.path.len() > 4096 {
        return Err("image.path must be absolute".to_owned());
    }
    if spec.image.sha256.alg() != model::HashAlg::Sha256 {
        return Err("image.sha256 must be a SHA-256 digest".to_owned());
    }
    prediction(&spec.reference).map(|_| ()).map_err(|error| format!("reference: {error}"))
}

/// What the guest's image measures.
pub(crate) fn prediction(reference: &serde_json::Value) -> Result<Prediction, serde_json::Error> {
    serde_json::from_value(reference.clone())
}

async fn list(State(app): State<App>, _operator: Operator) -> Outcome<Vec<VmView>> {
    Ok(Answer(app.records.vms().await?.iter().map(|vm| vm.view()).collect()))
}

async fn show(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<VmView> {
    Ok(Answer(app.vm(&name).await?.value.view()))
}

async fn trace(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<Trace> {
    let vm = app.vm(&name).await?.value;
    let home = match &vm.home {
        Some(home) => app.records.get(&records::host(home)?).await?.map(|host| host.value),
        None => None,
    };
    Ok(Answer(trace::guest(&app, &vm, home.as_ref())?))
}

async fn operation(
    State(app): State<App>,
    _operator: Operator,
    Named(id): Named<OperationId>,
) -> Outcome<Operation> {
    Ok(Answer(operations::get(&app, id).await?.value))
}

async fn start(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
    Body(request): Body<StartRequest>,
) -> Outcome<Operation> {
    let host = app.host(&request.host).await?.value;
    // A VM that lives elsewhere is refused for that, whatever the host asked for is worth.
    if let Some(vm) = app.records.get(&records::vm(&name)?).await?
        && vm.value.home.is_some()
    {
        vm.value.is_home(&request.host)?;
    }
    grant::leases_have_ended(app.restored, app.now())?;
    host.takes_starts()?;
    host.may_hold_keys(app.now())?;
    wish(&app, &operator, &name, Wish::Start(request.host)).await
}

async fn stop(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<Operation> {
    wish(&app, &operator, &name, Wish::Stop).await
}

async fn attest(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<Operation> {
    wish(&app, &operator, &name, Wish::Attest).await
}

async fn rekey(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<Operation> {
    wish(&app, &operator, &name, Wish::Rekey).await
}

async fn wish(app: &App, operator: &Operator, name: &VmId, wish: Wish) -> Outcome<Operation> {
    let event = wish.event();
    let operation = operations::accept(app, name, wish).await?;
    let operation = operation.ok_or_else(|| Failure::broken("a wish without an operation"))?;
    let detail = format!("operation {} on {}", operation.id, operation.host);
    app.audit.done(&operator.actor(), Done::new(event, subject_of(name)).detail(detail)).await?;
    Ok(Answer(operation))
}

async fn delete(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
) -> Outcome<Option<Operation>> {
    let operation = operations::accept(&app, &name, Wish::Delete).await?;
    let detail = operation.as_ref().map_or_else(
        || "its keys are destroyed".to_owned(),
        |operation| format!("operation {} on {}", operation.id, operation.host),
    );
    let done = Done::new(Wish::Delete.event(), subject_of(&name)).detail(detail);
    app.audit.done(&operator.actor(), done).await?;
    app.anchor.now().await?;
    Ok(Answer(operation))
}

async fn revoke(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
    Body(reason): Body<Reason>,
) -> Outcome<VmView> {
    operations::accept(&app, &name, Wish::Revoke).await?;
    let done = Done::new(Wish::Revoke.event(), subject_of(&name)).detail(reason.reason);
    app.audit.done(&operator.actor(), done).await?;
    app.anchor.now().await?;
    Ok(Answer(app.vm(&name).await?.value.view()))
}

async fn silence(app: &App, vm: &VmRecord, powered_off: bool) -> Result<Silence, Failure> {
    let policy = app.policy();
    let home = match &vm.home {
        Some(home) => Some(app.host(home).await?.value),
        None => None,
    };
    // A lease that was given is not shortened by a policy that came after it.
    let given = home.as_ref().and_then(|home| home.standing.as_ref()).map_or(0, Standing::lease_s);
    Ok(Silence {
        silent_s: home.as_ref().map_or(u64::MAX, |home| app.silent_s(home)),
        powered_off,
        least_s: app.config.limits.fence_silence_s,
        lease_s: policy.lease_s.max(given).saturating_add(policy.clock_skew_s),
    })
}

async fn fence(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
    Body(request): Body<FenceRequest>,
) -> Outcome<VmView> {
    if request.reason.trim().is_empty() {
        return Err(Failure::refused(Refusal::invalid("a fence needs a reason")));
    }
    let (vm, before) = loop {
        let vm = app.vm(&name).await?;
        vm.value.may_be_fenced(silence(&app, &vm.value, request.powered_off).await?)?;
        let after = vm.value.fenced(app.restored.epoch_floor())?;
        let mut write = Write::new().put(records::vm(&name)?, &after, vm.version)?;
        if let Some(open) = vm.value.open {
            let detail = "the VM was fenced".to_owned();
            let hint = "start it again; it is made anew from its image".to_owned();
            write = operations::end(&app, write, open.id, Ended::Failed { detail, hint }).await?;
        }
        if app.records.commit(write).await? {
            break (after, vm.value);
        }
    };
    let (home, counts): (Option<HostId>, _) = (before.home.clone(), before.anchors_words());
    let from = home.map_or_else(String::new, |home| format!("home was {home}; "));
    let off = if request.powered_off { "the operator vouches that it is off; " } else { "" };
    let detail = format!("{from}{off}epoch {}; {}{counts}", vm.epoch.0, request.reason);
    app.audit
        .done(&operator.actor(), Done::new("vm-fenced", subject_of(&name)).detail(detail))
        .await?;
    app.anchor.now().await?;
    Ok(Answer(vm.view()))
}
