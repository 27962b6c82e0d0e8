//! Operations in the store: accepted with the VM's transition in one transaction, listed for their
//! host, ended once.

use model::{
    HostId, OperationId, VmId,
    api::operate::{Action, Operation, OperationUpdate, Outcome},
};
use serve::random;

use crate::{
    app::App,
    failure::Failure,
    record::{
        operation::{self, OperationRejection},
        vm::{KeyState, VmRecord, VmRejection, change::Accepted},
    },
    records::{self, OrderRecord, Versioned, Write},
};

/// What an operator wants of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Start on this host.
    Start(HostId),
    /// Stop.
    Stop,
    /// Take fresh evidence.
    Attest,
    /// Exchange the data keys of its volumes.
    Rekey,
    /// Delete.
    Delete,
    /// Revoke.
    Revoke,
}

impl Wish {
    /// What the audit log calls it.
    pub(crate) const fn event(&self) -> &'static str {
        match self {
            Self::Start(_) => "vm-start-ordered",
            Self::Stop => "vm-stop-ordered",
            Self::Attest => "vm-attestation-ordered",
            Self::Rekey => "vm-rekey-ordered",
            Self::Delete => "vm-deletion-ordered",
            Self::Revoke => "vm-revoked",
        }
    }

    fn apply(&self, vm: &VmRecord, id: OperationId, now: u64) -> Result<Accepted, VmRejection> {
        match self {
            Self::Start(host) => vm.start(host, id, now),
            Self::Stop => vm.stop(id, now),
            Self::Attest => vm.attest(id, now),
            Self::Rekey => vm.rekey(id, now),
            Self::Delete => vm.delete(id, now),
            Self::Revoke => Ok(vm.revoke(id, now)),
        }
    }
}

/// An operation.
///
/// # Errors
/// [`OperationRejection::Unknown`], or the store's.
pub(crate) async fn get(app: &App, id: OperationId) -> Result<Versioned<Operation>, Failure> {
    let found = app.records.get(&records::operation(id)?).await?;
    Ok(found.ok_or(OperationRejection::Unknown)?)
}

/// Accepts a wish; durable when it returns. `None` if nothing is left to be done by a host.
///
/// # Errors
/// [`VmRejection`], or the store's.
pub(crate) async fn accept(
    app: &App,
    name: &VmId,
    wish: Wish,
) -> Result<Option<Operation>, Failure> {
    let id = random::operation_id()?;
    loop {
        let now = app.now();
        let vm = app.vm(name).await?;
        let (after, operation, superseded) = match wish.apply(&vm.value, id, now)? {
            Accepted::Already(open) => return Ok(Some(get(app, open).await?.value)),
            Accepted::Settled(after) => (after, None, vm.value.open.map(|open| open.id)),
            Accepted::New { vm: after, host, superseded } => {
                let action = after.open.map_or(Action::Start, |open| open.action);
                let operation = operation::accepted(id, name.clone(), action, host, now);
                (after, Some(operation), superseded)
            }
        };
        let mut write = Write::new().put(records::vm(name)?, &after, vm.version)?;
        if after.key == KeyState::Destroyed {
            write = forget_key(app, write, name).await?;
        }
        let gone = superseded.filter(|open| after.open.map(|open| open.id) != Some(*open));
        if let Some(old) = gone {
            let detail = format!("superseded by {}", wish_word(&wish));
            let hint = "ask again if it is still wanted".to_owned();
            write = end(app, write, old, Outcome::Failed { detail, hint }).await?;
        }
        if let Some(operation) = &operation {
            let order = OrderRecord { accepted_at: now };
            write = write.put(records::operation(id)?, operation, 0)?.put(
                records::order(&operation.host, id)?,
                &order,
                0,
            )?;
        }
        if app.records.commit(write).await? {
            return Ok(operation);
        }
    }
}

const fn wish_word(wish: &Wish) -> &'static str {
    match wish {
        Wish::Start(_) => "a start",
        Wish::Stop => "stop",
        Wish::Attest => "an attestation",
        Wish::Rekey => "a re-keying",
        Wish::Delete => "a deletion",
        Wish::Revoke => "a revocation",
    }
}

/// Adds the end of an open operation to what is written.
///
/// # Errors
/// The store's.
pub(crate) async fn end(
    app: &App,
    write: Write,
    id: OperationId,
    outcome: Outcome,
) -> Result<Write, Failure> {
    let Some(old) = app.records.get(&records::operation(id)?).await? else { return Ok(write) };
    let host = old.value.host.clone();
    let after = operation::ended(old.value, outcome);
    let write = write.put(records::operation(id)?, &after, old.version)?;
    leave_list(app, write, &host, id).await
}

async fn leave_list(
    app: &App,
    write: Write,
    host: &HostId,
    id: OperationId,
) -> Result<Write, Failure> {
    let order = app.records.get(&records::order(host, id)?).await?;
    Ok(match order {
        Some(order) => write.delete(records::order(host, id)?, order.version),
        None => write,
    })
}

async fn forget_key(app: &App, write: Write, name: &VmId) -> Result<Write, Failure> {
    let key = app.records.get(&records::vmkey(name)?).await?;
    Ok(match key {
        Some(key) => write.delete(records::vmkey(name)?, key.version),
        None => write,
    })
}

/// Writes a host's report about an operation. Returns the operation and whether this report
/// brought its outcome.
///
/// # Errors
/// [`OperationRejection`], or the store's.
pub(crate) async fn report(
    app: &App,
    host: &HostId,
    id: OperationId,
    update: OperationUpdate,
) -> Result<(Operation, bool), Failure> {
    loop {
        let before = get(app, id).await?;
        let open = before.value.outcome.is_none();
        let after = operation::updated(before.value, host, update.clone())?;
        if !open {
            return Ok((after, false));
        }
        let mut write = Write::new().put(records::operation(id)?, &after, before.version)?;
        if let Some(outcome) = &after.outcome {
            write = leave_list(app, write, host, id).await?;
            if let Some(vm) = app.records.get(&records::vm(&after.vm)?).await? {
                let settled = vm.value.settled(id, outcome);
                write = write.put(records::vm(&after.vm)?, &settled, vm.version)?;
                if settled.key == KeyState::Destroyed {
                    write = forget_key(app, write, &after.vm).await?;
                }
            }
        }
        if app.records.commit(write).await? {
            let ended = after.outcome.is_some();
            return Ok((after, ended));
        }
    }
}
