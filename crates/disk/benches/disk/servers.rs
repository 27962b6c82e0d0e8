//! The servers that are compared, each on its image, each started fresh for a round.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use disk::vault::{NewSlot, NewVault, SlotSecret, Suite};
use model::Secret;

/// Bytes of every image's content.
pub const SIZE: u64 = 512 << 20;
const KEY: &[u8] = b"a pass phrase for measuring with";

/// The key of every volume.
pub fn key() -> Secret<Vec<u8>> {
    Secret::new(KEY.to_vec())
}

/// Who serves what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    OursLuks1,
    OursRaw,
    OursGcm,
    OursAegis,
    /// Durable before it is answered, as the agent has VMs' vaults served.
    OursThrough,
    /// Ours, of an image and with options of its own.
    OursVhost,
    QemuLuks1,
    QemuRaw,
    NbdkitLuks1,
    NbdkitFile,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::OursLuks1 => "luks1",
            Self::OursRaw => "raw",
            Self::OursGcm => "vault-gcm",
            Self::OursAegis => "vault-aegis",
            Self::OursThrough => "through",
            Self::OursVhost => "vhost",
            Self::QemuLuks1 => "qemu-nbd",
            Self::QemuRaw => "qemu-nbd-raw",
            Self::NbdkitLuks1 => "nbdkit-luks",
            Self::NbdkitFile => "nbdkit-file",
        }
    }

    /// Name of the image that it serves.
    pub fn image(self) -> &'static str {
        match self {
            Self::OursLuks1 | Self::QemuLuks1 | Self::NbdkitLuks1 => "luks1",
            Self::OursRaw | Self::QemuRaw | Self::NbdkitFile | Self::OursVhost => "raw",
            Self::OursGcm | Self::OursThrough => "gcm",
            Self::OursAegis => "aegis",
        }
    }
}

/// A directory with the images.
pub struct Place {
    pub dir: PathBuf,
    /// Past the page cache, where the server can.
    pub direct: bool,
}

/// A running server; ended when dropped.
pub struct Running {
    child: Child,
    pub socket: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..100 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Processor seconds that the server has used, with those of threads that ended.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        let (_, fields) = stat.rsplit_once(')').expect("stat");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Place {
    /// Makes the images in `dir`: LUKS1 by cryptsetup with a cheap key derivation.
    pub fn make(dir: &Path, direct: bool) -> Self {
        fs::create_dir_all(dir).expect("directory");
        fs::write(dir.join("key"), KEY).expect("key");
        let place = Self { dir: dir.to_owned(), direct };
        place.make_luks1(Who::OursLuks1.image());
        place.make_raw(Who::OursRaw.image());
        place.make_vault(Who::OursGcm.image(), Who::OursGcm);
        place.make_vault(Who::OursAegis.image(), Who::OursAegis);
        place
    }

    /// A fresh file of holes.
    pub fn make_raw(&self, name: &str) {
        File::create(self.path(name)).expect("image").set_len(SIZE).expect("image");
    }

    /// A fresh LUKS1 volume, by cryptsetup.
    pub fn make_luks1(&self, name: &str) {
        let luks = self.path(name);
        File::create(&luks).expect("image").set_len(SIZE + (4 << 20)).expect("image");
        let mut format = Command::new("cryptsetup");
        format.args(["luksFormat", "--type", "luks1", "--batch-mode"]);
        format.args(["--pbkdf-force-iterations", "1000", "--cipher", "aes-xts-plain64"]);
        format.args(["--key-size", "512", "--key-file"]).arg(self.path("key")).arg(&luks);
        assert!(format.status().expect("cryptsetup").success(), "cryptsetup failed");
    }

    /// A fresh, empty volume in our format, with the cipher of `who`.
    pub fn make_vault(&self, name: &str, who: Who) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let key = key();
        let suite = if who == Who::OursGcm { Suite::Aes256Gcm } else { Suite::Aegis256X4 };
        let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "bench" }];
        let new =
            NewVault { path: &path, size: SIZE, suite, log_bytes: None, label: "", slots: &slots };
        disk::vault::create(&new).expect("a vault volume");
    }

    /// The file `name` of this place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts a server and waits until it listens.
    pub fn start(&self, who: Who) -> Running {
        let socket = self.path("s");
        let _ = fs::remove_file(&socket);
        let image = self.path(who.image());
        let mut command = match who {
            Who::NbdkitFile | Who::NbdkitLuks1 => self.nbdkit(who, &socket, &image),
            Who::QemuRaw | Who::QemuLuks1 => self.qemu(who, &socket, &image),
            Who::OursLuks1
            | Who::OursRaw
            | Who::OursGcm
            | Who::OursAegis
            | Who::OursThrough
            | Who::OursVhost => self.ours(who, &socket, &image),
        };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running { child: command.spawn().expect("a server"), socket };
        for _ in 0..400 {
            if running.socket.exists() && UnixStream::connect(&running.socket).is_ok() {
                thread::sleep(Duration::from_millis(30));
                return running;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not listen", who.name());
    }

    fn nbdkit(&self, who: Who, socket: &Path, image: &Path) -> Command {
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(socket);
        if who == Who::NbdkitLuks1 {
            command.args(["--filter=luks"]);
        }
        command.arg("file").arg(image);
        if who == Who::NbdkitLuks1 {
            command.arg(format!("passphrase=+{}", self.path("key").display()));
        }
        command
    }

    fn qemu(&self, who: Who, socket: &Path, image: &Path) -> Command {
        let mut command = Command::new("qemu-nbd");
        let cache = if self.direct { "none" } else { "writeback" };
        command.args(["--persistent", "--shared=8", "--cache", cache, "--socket"]).arg(socket);
        if who == Who::QemuRaw {
            command.args(["--format", "raw"]).arg(image);
        } else {
            let key = self.path("key");
            command.arg("--object").arg(format!("secret,id=k,file={}", key.display()));
            let file = format!("file.driver=file,file.filename={}", image.display());
            command.args(["--image-opts"]).arg(format!("driver=luks,key-secret=k,{file}"));
        }
        command
    }

    fn ours(&self, who: Who, socket: &Path, image: &Path) -> Command {
        // The shell opens the key, so that it is in no argument of ours.
        let mut command = Command::new("sh");
        let own = std::env::current_exe().expect("own path");
        let bin = own.parent().and_then(Path::parent).expect("target").join("vouchsafe-disk");
        assert!(bin.exists(), "{} is not built", bin.display());
        let raw = matches!(who, Who::OursRaw | Who::OursVhost);
        let mut words = format!(
            "exec {} serve --image {} --socket {} --control {}",
            bin.display(),
            image.display(),
            socket.display(),
            self.path("c").display()
        );
        words.push_str(if raw { " --format raw" } else { " --key-fd 9" });
        if self.direct {
            words.push_str(" --direct");
        }
        if who == Who::OursVhost {
            words.push_str(" --vhost-user");
        }
        if who == Who::OursThrough {
            words.push_str(" --write-through");
        }
        words.push_str(&format!(" 9<{}", self.path("key").display()));
        command.arg("-c").arg(words);
        command
    }
}
