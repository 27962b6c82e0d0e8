//! `vouchsafe-disk create`.

mod vault;

use std::{ops::ControlFlow, path::Path, thread};

use anyhow::Context as _;
use disk::luks2::{NewVolume, SlotKind, create, create_empty};
use model::{Digest, Secret, child::disk::Progress};
use serve::{exit::Exit, process::read_secret_fd, sandbox, shell::line, shutdown::Shutdown};

use crate::{
    args::{CreateArgs, NewFormat},
    report::KEY_MAX,
};

/// A line is printed each time so many hundredths are done.
const STEP_PERCENT: u64 = 2;
/// But not for fewer bytes than this.
const STEP_MIN: u64 = 16 << 20;

pub(crate) fn run(args: &CreateArgs) -> anyhow::Result<Exit> {
    let secret = read_secret_fd(args.key_fd, KEY_MAX).context("cannot read the key")?;
    let dir = parent(&args.image);
    let source: Vec<&Path> = args.source.iter().map(std::path::PathBuf::as_path).collect();
    let files = sandbox::restrict_files(&source, &[dir])?;
    tracing::info!(sandbox.files = files.as_str(), image = %args.image.display(), "creating");
    let stop = watch_signals()?;
    let mut progress = told(&stop);
    if args.source.is_none() {
        line(&Progress::Started { total: 0 });
    }
    let Made { size, uuid, source } = match args.format {
        NewFormat::Luks2 => luks2(args, &secret, &mut progress)?,
        NewFormat::Vault => vault::create(args, &secret, &mut progress)?,
    };
    tracing::info!(volume.uuid = uuid, volume.size = size, "created");
    line(&Progress::Done { size, uuid, source });
    Ok(Exit::Done)
}

/// What was made, of whatever format.
struct Made {
    size: u64,
    uuid: String,
    source: Option<Digest>,
}

fn luks2(
    args: &CreateArgs,
    secret: &Secret<Vec<u8>>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<Made> {
    let new = NewVolume {
        path: &args.image,
        secret,
        slot: SlotKind::RandomKey,
        kmi: args.kmi.as_ref(),
        label: &args.label,
    };
    let created = match &args.source {
        Some(source) => create(&new, source, args.source_sha256.as_ref(), progress)?,
        None => create_empty(&new, args.size.unwrap_or_default())?,
    };
    Ok(Made { size: created.size, uuid: created.uuid, source: created.source })
}

/// Prints progress, and says whether to go on.
fn told(stop: &Shutdown) -> impl FnMut(u64, u64) -> ControlFlow<()> + '_ {
    let mut next = 0;
    move |done: u64, total: u64| {
        if done == 0 && next == 0 {
            line(&Progress::Started { total });
            next = 1;
        } else if done >= next || done == total {
            line(&Progress::Written { done, total });
            let step = (total / 100).saturating_mul(STEP_PERCENT).max(STEP_MIN);
            next = done.saturating_add(step);
        }
        if stop.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A flag that SIGTERM raises, watched by a thread of its own.
fn watch_signals() -> anyhow::Result<Shutdown> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = runtime.block_on(async { Shutdown::on_signals() })?;
    let watched = stop.clone();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(watched.requested()))?;
    Ok(stop)
}
