//! What all parts of the agent share.

use std::sync::Arc;

use serve::clock::SharedClock;
use tokio::sync::OnceCell;

use crate::{
    accel, anchors::Anchors, config::Config, grant::Ledger, guard::Guard, hosttpm::HostTpm,
    identity::Link, plan::Ability, spool::Spool, trouble::Trouble,
};

/// What all parts of the agent share.
#[derive(Debug)]
pub(crate) struct Host {
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// Time.
    pub(crate) clock: SharedClock,
    /// The host's TPM.
    pub(crate) tpm: HostTpm,
    /// The authority.
    pub(crate) link: Link,
    /// Cached keys.
    pub(crate) guard: Guard,
    /// What vault volumes are anchored in.
    pub(crate) anchors: Anchors,
    /// Used grants.
    pub(crate) ledger: Ledger,
    /// Refusals on their way to the audit log.
    pub(crate) spool: Spool,
    /// HPKE public key for deposits, from the last list of orders.
    pub(crate) deposit_key: tokio::sync::watch::Sender<Option<Vec<u8>>>,
    ability: OnceCell<Ability>,
}

impl Host {
    /// Puts the parts together.
    pub(crate) fn new(
        config: Arc<Config>,
        clock: SharedClock,
        tpm: HostTpm,
        link: Link,
        (guard, ledger, spool): (Guard, Ledger, Spool),
    ) -> Self {
        let deposit_key = tokio::sync::watch::Sender::new(None);
        let ability = OnceCell::new();
        let anchors = Anchors::new(tpm.clone(), &config.state_dir);
        Self { config, clock, tpm, link, guard, anchors, ledger, spool, deposit_key, ability }
    }

    /// What QEMU can do here; tried once.
    ///
    /// # Errors
    /// [`Trouble`] if QEMU cannot be run at all, or not with the accelerator that was asked for.
    pub(crate) async fn ability(&self) -> Result<Ability, Trouble> {
        self.ability.get_or_try_init(|| accel::probe(&self.config)).await.copied()
    }

    /// What QEMU can do here, if it was tried already.
    pub(crate) fn known_ability(&self) -> Option<Ability> {
        self.ability.get().copied()
    }
}
