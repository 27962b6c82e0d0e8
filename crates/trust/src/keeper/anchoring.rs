//! The library's anchor: an older copy of the state directory is refused at the start, and what ends
//! a key is anchored before it is answered, as far as the pace allows.
//!
//! ```text
//!   start ─► store, audit log ─► anchor::Stand ─┬─ the newest: everything else is opened
//!                                               └─ store-rolled-back …: refused, audited
//!   revoked, recovered, moved away, graded ─► Following::soon
//!   operator, after a backup was put back ─► Keeper::restore ─► the newest from now on
//! ```

use std::{path::Path, sync::Arc};

use anchor::{Anchoring, Restored, Signing, Stand};
use attest::envelope::{SoftwareKey, TrustedKeys, checkpoints, checkpoints_of};
use model::api::service::Service;
use serve::clock::SharedClock;
use store::{
    typed::{Records, Write},
    wait,
};

use super::{
    Keeper,
    authorize::check_operator,
    journal::Journal,
    keyring,
    record::{self, Authorization, CrlState, Recovery},
    refusal::{Fault, Why},
    settings::Settings,
};

/// What the anchor stands on.
pub(super) fn stand(
    (records, journal): (&Records, &Journal),
    signer: &Arc<SoftwareKey>,
    (dir, clock): (&Path, &SharedClock),
    anchoring: Anchoring,
) -> Result<Stand, Fault> {
    let keys = TrustedKeys::new([signer.spki()]).map_err(Fault::key)?;
    let signing = Signing::new(checkpoints(Arc::clone(signer)), checkpoints_of(keys));
    let log = journal.log();
    Ok(Stand::new(Service::Trust, (records, log), signing, (dir, clock), anchoring))
}

impl Keeper {
    /// A last head, and no more.
    ///
    /// # Errors
    /// [`Fault::Anchor`]: why the anchor ended before, if it did.
    pub async fn end_anchor(&self) -> Result<(), Fault> {
        Ok(self.anchor.end().await?)
    }

    /// Makes the state in `dir` the newest: after an operator put a backup back, or the TPM was
    /// replaced. Pass phrases that are open and recoveries that were approved end, for they may have
    /// been used since; numbers of CRLs go on from the time, above any that can have been given.
    ///
    /// # Errors
    /// [`Why`], for example if another process has the state open.
    pub async fn restore(
        (settings, anchoring): (&Settings, &Anchoring),
        dir: &Path,
        clock: SharedClock,
        operator: &str,
    ) -> Result<Restored, Why> {
        check_operator(operator)?;
        let records = anchor::records(settings.root_key.as_ref(), dir).map_err(Fault::from)?;
        let signer = keyring::checkpoint(&records, dir)?;
        let noise = settings.refusals_per_minute;
        let journal = Journal::open(&dir.join("audit"), clock.clone(), Arc::clone(&signer), noise)?;
        records.forget("auth/", |one: &Authorization| one.used.is_none()).await?;
        records.forget("recovery/", |_: &Recovery| true).await?;
        let held = records.get(&record::crl_state()?).await?;
        let (version, last) = held.map_or((0, 0), |held| (held.version, held.value.number));
        let state = CrlState { number: last.max(clock.unix_ms() / 1000) };
        records.commit(Write::new().put(record::crl_state()?, &state, version)?).await?;
        let stand = stand((&records, &journal), &signer, (dir, &clock), anchoring.clone())?;
        let restored = stand.restore(operator).await.map_err(Fault::from)?;
        journal.close();
        wait(records.sealed().store().close()).map_err(store::typed::RecordError::from)?;
        Ok(restored)
    }
}
