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
        format!("vouchsafe:{}", self.role)
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
    /// [`Failure::Error`] naming the first that is missing.
    pub fn beside_this() -> Result<Self, Failure> {
        let this = std::env::current_exe()?;
        Self::in_folder(this.parent().unwrap_or_else(|| Path::new("/")))
    }

    /// Finds them in `folder`.
    ///
    /// # Errors
    /// As [`Self::beside_this`].
    pub fn in_folder(folder: &Path) -> Result<Self, Failure> {
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Failure::error(
                format!("{} is missing", path.display()),
                "the programs are installed side by side; build them with `cargo build --release`",
            ))
        };
        Ok(Self {
            authority: find("vouchsafe-authority")?,
            host: find("vouchsafe-host")?,
            vtpm: find("vouchsafe-vtpm")?,
            disk: find("vouchsafe-disk")?,
            trust: find("vouchsafe-trust")?,
            centre: find("vouchsafe-centre").ok(),
        })
    }
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
    /// Finds them.
    ///
    /// # Errors
    /// [`Failure::Error`] naming the first that is missing.
    pub fn find() -> Result<Self, Failure> {
        let missing = |what: &str| {
            Failure::error(format!("{what} is missing"), "`vouchsafe doctor` says what to install")
        };
        let file = |path: &str| {
            let path = PathBuf::from(path);
            if path.is_file() { Ok(path) } else { Err(missing(&path.display().to_string())) }
        };
        let qemu = "qemu-system-x86_64";
        Ok(Self {
            qemu: on_path(qemu).ok_or_else(|| missing(qemu))?,
            swtpm: on_path("swtpm").ok_or_else(|| missing("swtpm"))?,
            ovmf_code: file(OVMF_CODE)?,
            ovmf_vars: file(OVMF_VARS)?,
        })
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
