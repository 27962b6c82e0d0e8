//! A vTPM: swtpm with an EK certificate in its NV memory, and the IMA list that belongs to it.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use model::{
    Digest, HashAlg,
    guest::{PCRS, PcrValue},
};
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use tpm::{
    Address, Auth, AuthValue, Connect as _, Hierarchy, NvAttributes, NvPublic, PcrSelection, Tpm,
    handle, template,
};

pub(crate) struct Vtpm {
    child: Child,
    socket: PathBuf,
    pub(crate) list: PathBuf,
    pub(crate) ek_certificate: Vec<u8>,
}

impl Vtpm {
    /// None (said aloud) without swtpm.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let (socket, state) = (dir.join("tpm"), dir.join("tpm-state"));
        std::fs::create_dir(&state).unwrap();
        let spawned = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            println!("Skipped: there is no swtpm");
            return None;
        };
        let mut vtpm = Self { child, socket, list: dir.join("ima"), ek_certificate: Vec::new() };
        (0..12_000).find(|_| {
            thread::sleep(Duration::from_millis(10));
            UnixStream::connect(&vtpm.socket).is_ok()
        });
        vtpm.manufacture();
        for (path, value) in [("boot_aggregate", 1), ("/bin/sh", 2), ("/bin/vouchsafe-guest", 3)] {
            vtpm.measures(path, [value; 32]);
        }
        Some(vtpm)
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    fn open(&self) -> Tpm {
        Tpm::new(self.address().connect().unwrap())
    }

    fn manufacture(&mut self) {
        let none = AuthValue::empty();
        let mut tpm = self.open();
        let ek = tpm
            .create_primary(Hierarchy::Endorsement, Auth::none(), &template::ek_p256(), &none)
            .unwrap();
        let spki = ek.public().spki_der().unwrap();
        tpm.persist(Hierarchy::Owner, Auth::none(), &ek, handle::EK).unwrap();
        tpm.flush(&ek).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let validity = Validity::new(now, Duration::from_secs(3600));
        let spec = CaSpec { common_name: "vTPM CA".to_owned(), path_length: 0, validity };
        let model = TpmModel {
            manufacturer: "id:00001014".to_owned(),
            model: "swtpm".to_owned(),
            version: "id:20191023".to_owned(),
        };
        let profile = Profile::VtpmEk { tpm: model, vm: "v1".parse().unwrap() };
        let validity = Validity::new(now, Duration::from_secs(1800));
        let issued = Ca::create_root(&spec).unwrap().0.issue(&profile, &spki, validity).unwrap();
        let size = u16::try_from(issued.der.len()).unwrap();
        let (index, attributes) = (handle::EK_CERT_P256, NvAttributes::EK_CERTIFICATE);
        let public = NvPublic { index, attributes, policy: Vec::new(), size };
        let platform = Hierarchy::Platform;
        tpm.nv_define(platform, Auth::none(), &public, &none).unwrap();
        tpm.nv_write(Some(platform), &mut Auth::none(), index, &issued.der).unwrap();
        self.ek_certificate = issued.der;
    }

    /// What IMA does when a file is executed.
    pub(crate) fn measures(&self, path: &str, file: [u8; 32]) {
        let sized =
            |data: &[u8]| [&u32::try_from(data.len()).unwrap().to_le_bytes()[..], data].concat();
        let data = [
            sized(&[&b"sha256:\0"[..], &file].concat()),
            sized(format!("{path}\0").as_bytes()),
            sized(&[]),
        ]
        .concat();
        let entry =
            [&10_u32.to_le_bytes()[..], &[1; 20], &sized(b"ima-sig"), &sized(&data)].concat();
        let list = std::fs::OpenOptions::new().create(true).append(true).open(&self.list);
        list.unwrap().write_all(&entry).unwrap();
        let extend = Digest::new(HashAlg::Sha256, digest(&SHA256, &data).as_ref()).unwrap();
        self.open().pcr_extend(10, &[extend]).unwrap();
    }

    /// What the server's agent observed.
    pub(crate) fn observed(&self) -> Vec<PcrValue> {
        let values = self.open().pcr_read(&PcrSelection::sha256(&PCRS)).unwrap();
        let value = |pcr: &u8| *values.get(HashAlg::Sha256, *pcr).unwrap();
        PCRS.iter().map(|pcr| PcrValue { pcr: *pcr, value: value(pcr) }).collect()
    }
}

impl Drop for Vtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
