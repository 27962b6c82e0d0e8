//! `vouchsafe-authority init`: makes everything that an authority is. Repeatable: what is there is
//! left alone, what a crash left out is made.
//!
//! ```text
//! root key (sealed by the TPM) ─► CA, keys, operator ─► store, policy ─► counter and first head
//!   ─► shares shown ─► marker
//! ```

use anchor::Anchored;
use model::{Incarnation, api::policy::PolicyView};
use serde::Serialize;
use serve::{clock::SharedClock, fsfile};

use crate::{
    audit::{Actor, Auditor, Done},
    command::Told,
    config::Config,
    ground::{self, GroundError, Opened},
    keyring,
    paths::Paths,
    records::{self, Write},
    root::RootKey,
    tpmlink::TpmLink,
};

/// What `init` tells its caller.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What clients trust.
    ca_file: String,
    /// The first operator's certificate.
    client_cert: String,
    /// Its key.
    client_key: String,
    /// The key that signs grants, verdicts and checkpoints.
    signing_key_file: String,
    /// Shares of the root key: shown once, never stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_shares: Option<Vec<String>>,
    /// How many shares bring the root key back.
    threshold: u8,
}

impl Told for Report {
    fn in_words(&self) -> String {
        let Self { ca_file, client_cert, client_key, signing_key_file, threshold, .. } = self;
        let mut text = format!(
            "CA certificate of the authority:  {ca_file}\n\
             first operator's certificate:     {client_cert}\n\
             first operator's key:             {client_key}\n\
             key that signs verdicts and logs: {signing_key_file}\n\n"
        );
        match &self.recovery_shares {
            None => {
                text.push_str("nothing was to be made; the recovery shares are not shown again")
            }
            Some(shares) => {
                text.push_str(&shares_in_words("recovery shares", shares, *threshold));
                text.push_str(
                    "\nThey bring the root key back when the TPM is lost.\n\nnext: start \
                     vouchsafe-authority; on the operator's machine write \
                     /etc/vouchsafe/client.toml with these files",
                );
            }
        }
        text
    }
}

/// Shares, each on a line, and what is to be done with them.
pub(crate) fn shares_in_words(what: &str, shares: &[String], threshold: u8) -> String {
    let mut text = format!(
        "{} {what}, shown ONCE and stored nowhere. Give each to another person; any {threshold} \
         together are needed:\n",
        shares.len()
    );
    for (share, number) in shares.iter().zip(1_usize..) {
        text.push_str(&format!("\n  {number}.  {share}"));
    }
    text.push('\n');
    text
}

/// The last thing that `init` writes.
#[derive(Debug, Serialize)]
struct Marker {
    version: &'static str,
    initialised_at: u64,
}

/// Makes what is missing. `say` hands the report to the caller; only then is `init` over.
///
/// # Errors
/// [`GroundError`].
pub(crate) async fn init(
    config: &Config,
    clock: &SharedClock,
    say: impl FnOnce(&Report) -> std::io::Result<()>,
) -> Result<(), GroundError> {
    let paths = Paths::new(&config.state_dir);
    let tpm = TpmLink::new(config.tpm_address()?)?;
    let new = !paths.marker().exists();
    let mut shares = None;
    if new {
        fsfile::create_private_dir(paths.dir())?;
        fsfile::create_private_dir(&paths.evidence())?;
        let root = if paths.root().exists() {
            ground::open_root(&paths, &tpm).await?
        } else {
            RootKey::create(&paths.root(), &tpm, &config.seal_pcrs).await?
        };
        keyring::make(&paths, &root, clock)?;
        lay_ground(config, clock, &root, &paths, &tpm).await?;
        shares = Some(root.shares(config.recovery.threshold, config.recovery.shares)?);
    }
    let text = |path: std::path::PathBuf| path.display().to_string();
    let report = Report {
        ca_file: text(paths.ca()),
        client_cert: text(paths.operator()),
        client_key: text(paths.operator_key()),
        signing_key_file: text(paths.signing_public()),
        recovery_shares: shares,
        threshold: config.recovery.threshold,
    };
    say(&report).map_err(|source| fsfile::FileError::Io {
        operation: "write to",
        path: "stdout".into(),
        source,
    })?;
    if new {
        mark(&paths, clock)?;
    }
    Ok(())
}

/// Writes the marker: everything is there.
///
/// # Errors
/// [`GroundError::File`].
pub(crate) fn mark(paths: &Paths, clock: &SharedClock) -> Result<(), GroundError> {
    let marker = Marker { version: env!("CARGO_PKG_VERSION"), initialised_at: clock.unix_ms() };
    let marker = serde_json::to_vec_pretty(&marker).unwrap_or_default();
    Ok(fsfile::write_atomic(&paths.marker(), &marker, 0o644)?)
}

/// Makes store, audit log, policy, counter and the first head.
async fn lay_ground(
    config: &Config,
    clock: &SharedClock,
    root: &RootKey,
    paths: &Paths,
    tpm: &TpmLink,
) -> Result<(), GroundError> {
    let opened = Opened::new(paths.clone(), root, tpm.clone(), clock)?;
    let in_use =
        !opened.records.hosts().await?.is_empty() || !opened.records.vms().await?.is_empty();
    if in_use && !paths.head().exists() {
        return Err(GroundError::HeadMissing);
    }
    if opened.records.get(&records::policy()?).await?.is_none() {
        let policy = PolicyView { generation: 1, policy: config.policy.clone() };
        let write = Write::new().put(records::policy()?, &policy, 0)?.put(
            records::incarnation()?,
            &Incarnation(1),
            0,
        )?;
        opened.records.commit(write).await?;
        let auditor = Auditor::new(opened.log.clone(), clock.clone());
        let done = Done::new("authority-initialised", "authority");
        auditor.done(&Actor::authority(), done).await.map_err(GroundError::audit)?;
    }
    if !paths.head().exists() {
        let ground = opened.anchor_ground(config, clock, Incarnation(1));
        Anchored::first(ground).await?;
    }
    opened.close().await
}
