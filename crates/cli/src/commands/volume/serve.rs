//! `vouchsafe volume serve`: the export in this process, sandboxed as `vouchsafe-disk` is.
//!
//! ```text
//!   harden -> key -> open, locked -> anchor -> socket -> files restricted -> serve
//!     -> SIGTERM -> drain -> close -> anchor -> exit 0
//! ```

mod tls;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use disk::{
    OpenOptions, Rejection, TrimPolicy, Volume,
    nbd::{PeerPolicy, Server, ServerOptions, UnixSocket, bind},
    vault::{self, VaultVolume},
    vhost,
};
use serde_json::json;
use serve::{sandbox, shutdown::Shutdown, telemetry};

use super::{Opened, anchor, failure, online::control::Control};
use crate::{
    args::{AnyFormat, VolumeServe},
    output::{Failure, Printer},
};

/// Time between two advances of the anchor: the window in which a crash allows a rollback.
const ADVANCE: Duration = Duration::from_secs(15 * 60);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A refusal of the volume, or the system's error.
pub(super) async fn run(args: &VolumeServe, printer: Printer) -> Result<(), Failure> {
    let mut log = telemetry::Log::default();
    if args.trace_steps {
        log.filter = format!("{},{}=trace", log.filter, disk::steps::TARGET);
    }
    telemetry::init(&log)?;
    sandbox::harden()?;
    serve::shell::lock_memory();
    let Opened { volume, anchored, vault } = open(args)?;
    if let Some(damage) = volume.header_damage() {
        printer.say(&format!("the header needs repair: {damage}"));
    }
    // Before the socket exists: who sees it may end us in good order at once.
    let stop = Shutdown::on_signals()?;
    let peers = PeerPolicy::with_users(args.client_uids.clone());
    let control = args.control.as_deref().map(|path| bind_control(path, vault)).transpose()?;
    let socket = bind(&args.socket, &peers)
        .with_context(|| format!("the socket {}", args.socket.display()))?;
    let front = tls::Front::bind(&args.over_tls, &args.socket).await?;
    // Every file is open; the socket is removed at the end, and an anchor is written.
    let mut writable = vec![parent(&args.socket)];
    writable.extend(args.control.as_deref().map(parent));
    writable.extend(anchored.as_deref().and_then(anchor::Anchored::directory));
    let files = sandbox::restrict_files(&[], &writable)?;
    tracing::info!(sandbox.files = files.as_str(), socket = %args.socket.display(), "serving");
    let control = control.map(|control| control.start(&stop)).transpose()?;
    say(args, volume.as_ref(), (anchored.is_some(), front.as_ref()), printer);
    let export = async {
        if args.vhost_user {
            vhost_user(Arc::clone(&volume), socket, peers, &stop).await
        } else {
            nbd(Arc::clone(&volume), socket, peers, &stop, &args.path).await
        }
    };
    tokio::select! {
        served = export => served?,
        never = tick(anchored.as_deref()) => never?,
        () = over_tls(front) => {}
    }
    drop(control);
    // Twice is once: the export closed it when its last connection had ended.
    volume.close().context("the volume could not be closed in good order")?;
    Ok(())
}

/// Serves over TCP, too, if that is wished.
async fn over_tls(front: Option<tls::Front>) {
    match front {
        Some(front) => front.run().await,
        None => std::future::pending().await,
    }
}

/// Advances the anchor now and then; returns only if that fails.
async fn tick(anchored: Option<&anchor::Anchored>) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(ADVANCE).await;
        if let Some(anchored) = anchored {
            anchored.tick()?;
        }
    }
}

fn open(args: &VolumeServe) -> Result<Opened, Failure> {
    if let (true, Some(size)) = (args.ephemeral, args.size) {
        return ephemeral(&args.path, size);
    }
    if matches!(args.format, Some(AnyFormat::Qcow2)) {
        let words = "qcow2 is not served; `volume convert` makes a volume of it";
        return Err(Failure::Usage(words.to_owned()));
    }
    let options = OpenOptions {
        read_only: args.read_only || args.snapshot.is_some(),
        kmi: args.kmi.clone(),
        trim: if args.keep_allocation { TrimPolicy::Keep } else { TrimPolicy::Punch },
        format: args.format.map(super::format).transpose()?,
        direct: args.direct,
        snapshot: args.snapshot.clone(),
        ..OpenOptions::default()
    };
    let secret = args.key.said().map(|from| from.secret(&args.path)).transpose()?;
    super::open(&args.path, secret.as_ref(), &options, args.anchor.as_ref())
}

/// A volume whose key is nowhere but in this process. The file loses its name at once, so that the
/// system takes its space back however the process ends.
fn ephemeral(path: &Path, size: u64) -> Result<Opened, Failure> {
    let made = vault::create_ephemeral(path, size, vault::Suite::Aes256Gcm);
    let volume = made.map_err(failure::at(path))?;
    std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    Ok(Opened { volume: Arc::new(volume), anchored: None, vault: None })
}

/// The socket at which the volume's keys are exchanged.
fn bind_control(path: &Path, vault: Option<Arc<VaultVolume>>) -> Result<Control, Failure> {
    let vault = vault.ok_or_else(|| failure::of(Rejection::NotVault.into()))?;
    Control::bind(path, vault)
}

/// What is served, on stdout; what is not checked, on stderr.
fn say(
    args: &VolumeServe,
    volume: &dyn Volume,
    (anchored, front): (bool, Option<&tls::Front>),
    printer: Printer,
) {
    if volume.format() == "vault" && !anchored && !args.ephemeral {
        printer.say("freshness is unchecked: an older copy of this file would be served as well; see --anchor");
    }
    if volume.format() != "vault" {
        printer.say(&format!("{}: not authenticated, alterations go unnoticed", volume.format()));
    }
    let shown = json!({
        "serving": args.path, "format": volume.format(), "size": volume.size(),
        "read_only": volume.read_only(), "freshness_checked": anchored, "ephemeral": args.ephemeral,
        "socket": args.socket, "listen": front.and_then(|front| front.address().ok()), "export": if args.vhost_user { "vhost-user-blk" } else { "nbd" },
    });
    let text = format!(
        "serving {} ({}, {} bytes) on {}",
        args.path.display(),
        volume.format(),
        volume.size(),
        args.socket.display()
    );
    let _told = printer.result(&shown, &text);
}

async fn nbd(
    volume: Arc<dyn Volume>,
    socket: UnixSocket,
    peers: PeerPolicy,
    stop: &Shutdown,
    path: &Path,
) -> Result<(), Failure> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let names = std::iter::once(String::new()).chain(stem).collect();
    let options = ServerOptions { names, peers, ..ServerOptions::default() };
    let server = Server::start(volume, socket, options)?;
    stop.requested().await;
    Ok(server.stop().context("the last flush failed")?)
}

async fn vhost_user(
    volume: Arc<dyn Volume>,
    socket: UnixSocket,
    peers: PeerPolicy,
    stop: &Shutdown,
) -> Result<(), Failure> {
    let options = vhost::ServerOptions { peers, ..vhost::ServerOptions::default() };
    let server = vhost::Server::start(volume, socket, options)?;
    stop.requested().await;
    Ok(server.stop().context("the last flush failed")?)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
