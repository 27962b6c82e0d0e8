//! `vouchsafe-disk serve`.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use disk::{
    OpenOptions, Opened, TrimPolicy, Volume, WriteThrough,
    nbd::{self, PeerPolicy, bind},
    open, vhost,
};
use model::Secret;
use serve::{exit::Exit, process::read_secret_fd, sandbox, shutdown::Shutdown};

use crate::{
    args::ServeArgs, control::Control, create::parent, export::Export, keys::Keys, report::KEY_MAX,
};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    let (volume, secret) = open_volume(args)?;
    let peers = PeerPolicy::with_users(args.client_uids.clone());
    let socket = bind(&args.socket, &peers).context("the export's socket")?;
    let control = bind(&args.control, &PeerPolicy::default()).context("the control socket")?;
    // All files are open; only the sockets are removed at the end.
    let dirs = [parent(&args.socket), parent(&args.control)];
    let files = sandbox::restrict_files(&[], &dirs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = runtime.block_on(async { Shutdown::on_signals() })?;
    let server = Arc::new(export(args, volume.volume(), socket, peers)?);
    let keys = volume.vault().cloned().zip(secret).map(|(vault, key)| Keys::new(vault, key));
    let rekeying = keys.as_ref().map(|keys| Arc::clone(keys.work()));
    if let Some(keys) = &keys {
        keys.resume()?;
    }
    let control = Control { server: Arc::clone(&server), keys, socket: control };
    serve::control::start(control, stop.clone())?;
    tracing::info!(
        sandbox.files = files.as_str(),
        volume.size = server.volume().size(),
        volume.read_only = args.read_only,
        socket = %args.socket.display(),
        "serving"
    );
    runtime.block_on(stop.requested());
    if let Some(rekeying) = rekeying {
        rekeying.stop();
    }
    server.stop().context("the last flush failed")?;
    // The control thread holds its socket; the process ends now, so its file goes here.
    let _ = std::fs::remove_file(&args.control);
    let _ = std::fs::remove_file(&args.socket);
    tracing::info!("stopped");
    Ok(Exit::Done)
}

fn export(
    args: &ServeArgs,
    volume: Arc<dyn Volume>,
    socket: nbd::UnixSocket,
    peers: PeerPolicy,
) -> std::io::Result<Export> {
    let volume: Arc<dyn Volume> =
        if args.write_through { Arc::new(WriteThrough::new(volume)) } else { volume };
    if args.vhost_user {
        let options = vhost::ServerOptions { peers, queues: args.queues };
        return vhost::Server::start(volume, socket, options).map(Export::Vhost);
    }
    let options =
        nbd::ServerOptions { names: names(&args.image), peers, ..nbd::ServerOptions::default() };
    nbd::Server::start(volume, socket, options).map(Export::Nbd)
}

fn open_volume(args: &ServeArgs) -> anyhow::Result<(Opened, Option<Secret<Vec<u8>>>)> {
    let secret = args.key_fd.map(|fd| read_secret_fd(fd, KEY_MAX)).transpose();
    let secret = secret.context("cannot read the key")?;
    let options = OpenOptions {
        read_only: args.read_only,
        kmi: args.kmi.clone(),
        trim: if args.keep_allocation { TrimPolicy::Keep } else { TrimPolicy::Punch },
        format: args.format.map(Into::into),
        direct: args.direct,
        anchor: args.anchor_count,
        ..OpenOptions::default()
    };
    let volume = open(&args.image, secret.as_ref(), &options)?;
    // Only a vault has a header that counts.
    let anchored = args.anchor_count.is_some();
    anyhow::ensure!(!anchored || volume.vault().is_some(), "only a vault volume can be anchored");
    if let Some(damage) = volume.header_damage() {
        tracing::warn!(detail = damage, "the volume's header needs repair");
    }
    Ok((volume, secret))
}

/// The empty name, which clients ask for by default, and the file's stem.
fn names(image: &Path) -> Vec<String> {
    let stem = image.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    std::iter::once(String::new()).chain(stem).collect()
}
