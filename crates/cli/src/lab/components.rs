//! What a lab host is made of: the files whose digests its event log names, found on this machine.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use model::Digest;

use crate::output::Failure;

/// One measured component.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its role, `vouchsafe:<role>` in the event log.
    pub role: &'static str,
    /// Where it is; `None` for what is no file.
    pub path: Option<PathBuf>,
    /// SHA-256 of its content.
    pub digest: Digest,
}

impl Component {
    /// Name of its event.
    #[must_use]
    pub fn event_name(&self) -> String {
        crate::reference::component_event(self.role)
    }
}

/// Our own programs, which stand beside this one.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `vouchsafe-authority`.
    pub authority: PathBuf,
    /// `vouchsafe-host`.
    pub host: PathBuf,
    /// `vouchsafe-vtpm`.
    pub vtpm: PathBuf,
    /// `vouchsafe-disk`.
    pub disk: PathBuf,
    /// `vouchsafe-trust`.
    pub trust: PathBuf,
    /// `vouchsafe-centre`, where it is installed.
    pub centre: Option<PathBuf>,
}

impl Programs {
    /// Finds them in the folder of the running program.
    ///
    /// # Errors
    /// [`Failure::Error`] naming what is missing.
    pub fn beside_this() -> Result<Self, Failure> {
        let mut missing = Vec::new();
        Self::search(&own_folder()?, &mut missing).ok_or_else(|| absent(&missing))
    }

    fn search(folder: &Path, missing: &mut Vec<String>) -> Option<Self> {
        let mut find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Some(path);
            }
            missing.push(path.display().to_string());
            None
        };
        let (authority, host) = (find("vouchsafe-authority"), find("vouchsafe-host"));
        let (vtpm, disk) = (find("vouchsafe-vtpm"), find("vouchsafe-disk"));
        let trust = find("vouchsafe-trust");
        let centre = Some(folder.join("vouchsafe-centre")).filter(|path| path.is_file());
        Some(Self {
            authority: authority?,
            host: host?,
            vtpm: vtpm?,
            disk: disk?,
            trust: trust?,
            centre,
        })
    }
}

/// Everything that is missing, at once.
fn absent(missing: &[String]) -> Failure {
    let verb = if missing.len() == 1 { "is" } else { "are" };
    Failure::error(
        format!("{} {verb} missing", missing.join(", ")),
        "`vouchsafe doctor` says how to get everything that a lab needs",
    )
}

/// The folder of the running program.
///
/// # Errors
/// [`Failure::Error`] if the system does not say.
pub fn own_folder() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe()?;
    Ok(this.parent().unwrap_or_else(|| Path::new("/")).to_owned())
}

/// Finds our own programs in `folder`, and the distribution's.
///
/// # Errors
/// [`Failure::Error`] naming everything that is missing of both.
pub fn find_all(folder: &Path) -> Result<(Programs, Distribution), Failure> {
    let mut missing = Vec::new();
    let programs = Programs::search(folder, &mut missing);
    let distribution = Distribution::search(&mut missing);
    programs.zip(distribution).ok_or_else(|| absent(&missing))
}

/// Programs and firmware of the distribution.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `swtpm`.
    pub swtpm: PathBuf,
    /// OVMF code.
    pub ovmf_code: PathBuf,
    /// OVMF variables, empty.
    pub ovmf_vars: PathBuf,
}

/// Where Debian's `ovmf` package puts the firmware's code.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Where Debian's `ovmf` package puts the empty variable store.
pub const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A program on the PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}

impl Distribution {
    fn search(missing: &mut Vec<String>) -> Option<Self> {
        let mut found = |what: &str, path: Option<PathBuf>| {
            if path.is_none() {
                missing.push(what.to_owned());
            }
            path
        };
        let file = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_file());
        let qemu = found("qemu-system-x86_64", on_path("qemu-system-x86_64"));
        let swtpm = found("swtpm", on_path("swtpm"));
        let ovmf_code = found(OVMF_CODE, file(OVMF_CODE));
        let ovmf_vars = found(OVMF_VARS, file(OVMF_VARS));
        Some(Self { qemu: qemu?, swtpm: swtpm?, ovmf_code: ovmf_code?, ovmf_vars: ovmf_vars? })
    }
}

/// SHA-256 of a file, read in pieces.
///
/// # Errors
/// [`Failure::Error`] if it cannot be read.
pub fn digest_file(path: &Path) -> Result<Digest, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::error(format!("{}: {error}", path.display()), "");
    let mut file = File::open(path).map_err(unreadable)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(unreadable)?;
        match buffer.get(..n) {
            Some([]) | None => break,
            Some(piece) => context.update(piece),
        }
    }
    let value = context.finish();
    Ok(Digest::new(model::HashAlg::Sha256, value.as_ref())?)
}

/// All components of a lab host with their digests.
///
/// # Errors
/// [`Failure::Error`] if one cannot be read.
pub fn measure(
    programs: &Programs,
    distribution: &Distribution,
) -> Result<Vec<Component>, Failure> {
    let files = [
        ("host", &programs.host),
        ("vtpm", &programs.vtpm),
        ("disk", &programs.disk),
        ("trust", &programs.trust),
        ("qemu", &distribution.qemu),
        ("swtpm", &distribution.swtpm),
        ("ovmf-code", &distribution.ovmf_code),
        ("ovmf-vars", &distribution.ovmf_vars),
    ];
    let mut components = vec![running_kernel()?];
    let centre = programs.centre.iter().map(|path| ("centre", path));
    for (role, path) in files.into_iter().chain(centre) {
        let path = path.clone();
        components.push(Component { role, digest: digest_file(&path)?, path: Some(path) });
    }
    Ok(components)
}

/// The running kernel, by what it says of itself: its image need not be readable.
fn running_kernel() -> Result<Component, Failure> {
    let version = std::fs::read("/proc/version")?;
    let value = aws_lc_rs::digest::digest(&SHA256, &version);
    let digest = Digest::new(model::HashAlg::Sha256, value.as_ref())?;
    Ok(Component { role: "kernel", path: None, digest })
}
