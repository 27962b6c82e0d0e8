//! From start to end of the process.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{fs::FlockOperation, io::Errno};
use serve::{
    exit::Exit,
    process::{ProcessId, read_secret_fd},
    sandbox,
    shutdown::Shutdown,
};

use crate::{
    agent::Agent,
    args::RunArgs,
    control::{Code, Control},
    keys::{KEYS_LENGTH, Keys},
    qemu,
    report::Refusal,
    sockets::Socket,
    swtpm,
    turn::Turns,
    vtpm::{Machine, MachineError, Vtpm},
};

/// How long swtpm may take to store its state and end.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Runs the vTPM until it is asked to end.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let keys = Keys::parse(&read_secret_fd(args.keys_fd, KEYS_LENGTH)?)?;
    make_dir(&args.dir)?;
    let _lock = lock(&args.dir)?;
    Socket::clear(&args.control);
    Socket::clear(&args.qemu);
    confine(&args)?;
    let (process, control) = swtpm::start(&args.swtpm, &args.dir, &keys)?;
    let control = Arc::new(control);
    let limit = usize::try_from(args.max_extends)?;
    let machine = begin(&control, process, limit)?;
    let vtpm = Arc::new(Vtpm {
        turns: Turns::new(machine),
        control,
        qemu_connected: AtomicBool::new(false),
        keys,
        swtpm_pid: u32::try_from(process.pid)?,
        dir: args.dir.clone(),
    });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve_until_end(args, &vtpm, process))
}

/// The state directory, private to us.
fn make_dir(dir: &Path) -> anyhow::Result<()> {
    if !dir.is_absolute() {
        bail!("--dir must be an absolute path");
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
}

/// Holds the state directory for this process alone, until it ends.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Refusal::InUse.into()),
        Err(errno) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// From here on, we and swtpm read programs and libraries, and write our directory and the
/// sockets' ones.
fn confine(args: &RunArgs) -> anyhow::Result<()> {
    let mut write: Vec<PathBuf> = vec![args.dir.clone()];
    for socket in [&args.control, &args.qemu] {
        let parent = socket.parent().filter(|parent| parent.is_absolute());
        write.push(parent.context("socket paths must be absolute")?.to_owned());
    }
    let write: Vec<&Path> = write.iter().map(PathBuf::as_path).collect();
    let mut read: Vec<&Path> =
        ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc"].into_iter().map(Path::new).collect();
    read.extend(args.swtpm.parent().filter(|parent| parent.is_absolute()));
    let files = sandbox::restrict_files(&read, &write)?;
    tracing::info!(files = files.as_str(), "confined");
    Ok(())
}

/// Connects to swtpm and lets it open its state.
fn begin(control: &Arc<Control>, process: ProcessId, limit: usize) -> anyhow::Result<Machine> {
    let opened = Machine::new(Arc::clone(control), limit)
        .and_then(|mut machine| machine.open().map(|()| machine));
    match opened {
        Ok(machine) => Ok(machine),
        Err(MachineError::Refused { code: Code::Init, result: 0x101 }) => {
            Err(Refusal::Foreign.into())
        }
        Err(MachineError::Refused { code: Code::Init, result: 9 }) => Err(Refusal::InUse.into()),
        Err(error) => {
            let ended = process.wait_exit_blocking(Duration::from_millis(200))?;
            match ended {
                Some(exit) => Err(error).with_context(|| format!("swtpm ended at once: {exit:?}")),
                None => Err(error).context("swtpm does not answer"),
            }
        }
    }
}

async fn serve_until_end(
    args: RunArgs,
    vtpm: &Arc<Vtpm>,
    swtpm: ProcessId,
) -> anyhow::Result<Exit> {
    let stop = Shutdown::on_signals()?;
    let for_qemu = Arc::new(Socket::listen(&args.qemu)?);
    qemu::start(Arc::clone(vtpm), Arc::clone(&for_qemu), args.client_uids, stop.clone())?;
    let for_agent = Arc::new(Socket::listen(&args.control)?);
    let agent =
        Agent { vtpm: Arc::clone(vtpm), socket: Arc::clone(&for_agent), stop: stop.clone() };
    serve::control::start(agent, stop.clone())?;
    tracing::info!(swtpm.pid = swtpm.pid, dir = %args.dir.display(), "serving");
    tokio::select! {
        () = stop.requested() => {}
        ended = ended(swtpm) => {
            ended?;
            for_qemu.remove();
            for_agent.remove();
            bail!("swtpm ended");
        }
    }
    for_qemu.remove();
    for_agent.remove();
    finish(vtpm, swtpm).await?;
    Ok(Exit::Done)
}

async fn ended(swtpm: ProcessId) -> anyhow::Result<()> {
    while swtpm.wait_exit(Duration::from_secs(3600)).await?.is_none() {}
    Ok(())
}

/// Lets swtpm store its state and end.
async fn finish(vtpm: &Arc<Vtpm>, swtpm: ProcessId) -> anyhow::Result<()> {
    let shared = Arc::clone(vtpm);
    let asked = tokio::task::spawn_blocking(move || shared.turns.take().shut_down());
    match tokio::time::timeout(STOP_WAIT, asked).await {
        Ok(Ok(Ok(()))) => {}
        other => tracing::warn!(outcome = ?other, "swtpm was not shut down in order"),
    }
    swtpm.stop(STOP_WAIT).await?;
    vtpm.sync()?;
    tracing::info!("ended");
    Ok(())
}
