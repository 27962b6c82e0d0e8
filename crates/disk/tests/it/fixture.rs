//! What the tests share: sources, keys, volumes, running exports, outside tools.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use disk::{
    CryptVolume, OpenOptions, Volume,
    luks2::{Created, NewVolume, SlotKind, create, create_empty, open},
    nbd::{PeerPolicy, Server, ServerOptions, bind},
};
use model::{Digest, Epoch, Kmi, Secret};
use tempfile::TempDir;

pub(crate) fn key() -> Secret<Vec<u8>> {
    Secret::new((1..=32).collect())
}

pub(crate) fn kmi(version: u32) -> Kmi {
    let key_id = Digest::sha256([5; 32]);
    Kmi { vm: "web-01".parse().unwrap(), key_id, version, epoch: Epoch(3) }
}

/// Bytes without a pattern that a cipher could hide behind, and with whole sectors of zeros.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = if (out.len() / 8192) % 3 == 1 { 0 } else { state ^ (state >> 29) };
        out.extend(word.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A volume named `v.luks` with `content`, under [`key`] and [`kmi`] 1.
    pub(crate) fn volume(&self, content: &[u8]) -> PathBuf {
        let source = self.file("source.raw", content);
        let path = self.path("v.luks");
        make(&path, &source, None).unwrap();
        path
    }

    /// An empty volume named `v.luks`.
    pub(crate) fn empty(&self, size: u64) -> PathBuf {
        let path = self.path("v.luks");
        let secret = key();
        create_empty(&new(&path, &secret, None), size).unwrap();
        path
    }
}

pub(crate) fn new<'a>(
    path: &'a Path,
    secret: &'a Secret<Vec<u8>>,
    kmi: Option<&'a Kmi>,
) -> NewVolume<'a> {
    NewVolume { path, secret, slot: SlotKind::RandomKey, kmi, label: "" }
}

pub(crate) fn make(
    path: &Path,
    source: &Path,
    expected: Option<&Digest>,
) -> Result<Created, disk::VolumeError> {
    let (secret, kmi) = (key(), kmi(1));
    let new = new(path, &secret, Some(&kmi));
    create(&new, source, expected, &mut |_, _| ControlFlow::Continue(()))
}

pub(crate) fn open_rw(path: &Path) -> CryptVolume {
    open(path, &key(), &OpenOptions::default()).unwrap()
}

/// Everything that the volume holds.
pub(crate) fn read_all(volume: &dyn Volume) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(volume.size()).unwrap()];
    volume.read(0, &mut all).unwrap();
    all
}

/// Serves `volume` on `s.sock` in `dir`.
pub(crate) fn serve(dir: &Dir, volume: Arc<dyn Volume>) -> (Server, PathBuf) {
    serve_with(dir, volume, ServerOptions::default())
}

pub(crate) fn serve_with(
    dir: &Dir,
    volume: Arc<dyn Volume>,
    options: ServerOptions,
) -> (Server, PathBuf) {
    let path = dir.path("s.sock");
    let socket = bind(&path, &options.peers).unwrap();
    let options = ServerOptions { names: vec![String::new(), "v".to_owned()], ..options };
    (Server::start(volume, socket, options).unwrap(), path)
}

pub(crate) fn own_user() -> PeerPolicy {
    PeerPolicy::default()
}

/// A command of an outside tool, or nothing, said aloud, if it is not installed.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("Skipped: {name} is not installed");
    }
    found.map(Command::new)
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub(crate) fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}
