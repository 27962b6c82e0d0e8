//! `vouchsafe-disk create`.

use std::{ops::ControlFlow, path::Path, thread};

use anyhow::Context as _;
use disk::luks2::{Created, NewVolume, SlotKind, create, create_empty};
use model::child::disk::Progress;
use serve::{exit::Exit, process::read_secret_fd, sandbox, shell::line, shutdown::Shutdown};

use crate::{args::CreateArgs, report::KEY_MAX};

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
    let new = NewVolume {
        path: &args.image,
        secret: &secret,
        slot: SlotKind::RandomKey,
        kmi: args.kmi.as_ref(),
        label: &args.label,
    };
    let created = match (&args.source, args.size) {
        (Some(source), _) => stream(&new, source, args, &stop)?,
        (None, size) => {
            line(&Progress::Started { total: 0 });
            create_empty(&new, size.unwrap_or_default())?
        }
    };
    let Created { size, uuid, source } = created;
    tracing::info!(volume.uuid = uuid, volume.size = size, "created");
    line(&Progress::Done { size, uuid, source });
    Ok(Exit::Done)
}

fn stream(
    new: &NewVolume<'_>,
    source: &Path,
    args: &CreateArgs,
    stop: &Shutdown,
) -> anyhow::Result<Created> {
    let mut next = 0;
    let mut progress = |done: u64, total: u64| {
        if done == 0 && next == 0 {
            line(&Progress::Started { total });
            next = 1;
        } else if done >= next || done == total {
            line(&Progress::Written { done, total });
            let step = (total / 100).saturating_mul(STEP_PERCENT).max(STEP_MIN);
            next = done.saturating_add(step);
        }
        if stop.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Ok(create(new, source, args.source_sha256.as_ref(), &mut progress)?)
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
