//! The centre's anchor: an older copy of its state is refused at the start, and a revocation is
//! anchored as soon as the pace allows. What an operator does after a backup was put back.

use std::{path::Path, sync::Arc};

use anchor::{Anchoring, Restored, Signing, Stand};
use attest::envelope::{SoftwareKey, TrustedKeys, checkpoints, checkpoints_of};
use journal::{Journal, Signer};
use model::api::service::Service;
use serve::clock::SharedClock;
use store::typed::{RecordError, Records, Write};

use super::{
    Centre, LOG, keys,
    record::{self, CrlState, FeedState},
    refusal::Fault,
    settings::Settings,
};

/// The audit log in `dir`, with `key` for its checkpoints.
pub(super) fn journal(
    settings: &Settings,
    dir: &Path,
    clock: &SharedClock,
    key: &Arc<SoftwareKey>,
) -> Result<Journal, Fault> {
    let signer = Signer::new(key.spki().to_vec(), checkpoints(Arc::clone(key)));
    let noise = settings.limits.refusals_per_minute;
    Ok(Journal::open(LOG, &dir.join("audit"), clock.clone(), (signer, noise))?)
}

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
    Ok(Stand::new(Service::Centre, (records, log), signing, (dir, clock), anchoring))
}

impl Centre {
    /// A last head, and no more.
    ///
    /// # Errors
    /// [`Fault::Anchor`]: why the anchor ended before, if it did.
    pub async fn end_anchor(&self) -> Result<(), Fault> {
        Ok(self.anchor.end().await?)
    }

    /// Makes the state in `dir` the newest: after an operator put a backup back, or the TPM was
    /// replaced. Numbers of CRLs and of news go on from the time, above any that can have been given,
    /// and all news before count as missed: trust services compare their libraries with the CRLs.
    ///
    /// # Errors
    /// [`Fault`], for example if another process has the state open.
    pub async fn restore(
        (settings, anchoring): (&Settings, &Anchoring),
        dir: &Path,
        clock: SharedClock,
        operator: &str,
    ) -> Result<Restored, Fault> {
        let records = anchor::records(settings.root_key.as_ref(), dir)?;
        let signer = keys::checkpoint(&records, dir)?;
        let journal = journal(settings, dir, &clock, &signer)?;
        let floor = clock.unix_ms() / 1000;
        let mut write = Write::new();
        for domain in &settings.domains {
            let place = || record::crl(&domain.name);
            let Some(held) = records.get(&place()?).await? else { continue };
            let number = held.value.number.max(floor);
            write = write.put(place()?, &CrlState { number, ..held.value }, held.version)?;
        }
        if let Some(held) = records.get(&record::feed_state()?).await? {
            let newest = held.value.newest.max(floor);
            let state = FeedState { newest, forgotten: newest };
            write = write.put(record::feed_state()?, &state, held.version)?;
        }
        if write.places() > 0 && !records.commit(write).await? {
            return Err(Fault::Contended);
        }
        let stand = stand((&records, &journal), &signer, (dir, &clock), anchoring.clone())?;
        let restored = stand.restore(operator).await?;
        journal.close();
        records.sealed().store().close().await.map_err(RecordError::from)?;
        Ok(restored)
    }
}
