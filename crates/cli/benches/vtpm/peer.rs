//! The peers: `swtpm_setup`, and a swtpm that only we talk to.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use model::Nonce;
use tpm::{
    Address, Auth, AuthValue, Connect as _, Hierarchy, Object, PcrSelection, PcrValues, Purpose,
    QualifyingData, Tpm, handle, template,
};

/// `swtpm_setup` with EK certificates from its own CA, in a directory of its own.
pub fn setup() {
    let home = tempfile::tempdir().expect("a directory");
    let at = |name: &str| home.path().join(name).display().to_string();
    fs::create_dir(at("state")).expect("a directory");
    let ca = format!(
        "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuer.pem\n\
         certserial = {0}/serial\n",
        home.path().display()
    );
    fs::write(at("ca.conf"), ca).expect("written");
    fs::write(at("options"), "--platform-manufacturer bench\n").expect("written");
    let config = format!(
        "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
         create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
        at("ca.conf"),
        at("options")
    );
    fs::write(at("setup.conf"), config).expect("written");
    let output = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--config", &at("setup.conf")])
        .args(["--tpmstate", &at("state")])
        .output()
        .expect("swtpm_setup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A swtpm without a proxy, and a client on its socket.
pub struct Direct {
    child: Child,
    tpm: Tpm,
    ak: Object,
    _home: tempfile::TempDir,
}

impl Direct {
    /// Starts one with an AK like a vTPM's.
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let socket = home.path().join("tpm");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", home.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm runs");
        while !socket.exists() {
            thread::sleep(Duration::from_millis(5));
        }
        let mut tpm = Tpm::new(Address::Unix(socket).connect().expect("connected"));
        let kind = template::ak_p256();
        let empty = AuthValue::empty();
        let made = tpm.create_primary(Hierarchy::Platform, Auth::none(), &kind, &empty);
        let made = made.expect("an AK");
        let ak = tpm.persist(Hierarchy::Platform, Auth::none(), &made, handle::VTPM_AK);
        let ak = ak.expect("persistent");
        tpm.flush(&made).expect("flushed");
        Self { child, tpm, ak, _home: home }
    }

    /// Something is measured.
    pub fn extend(&mut self) {
        self.tpm.pcr_extend(10, &[model::Digest::sha256([9; 32])]).expect("extended");
    }

    /// One quote of 24 PCRs, and their values.
    pub fn quote(&mut self) {
        self.quote_expecting(PcrValues::new());
    }

    /// What the PCRs hold.
    pub fn values(&mut self) -> PcrValues {
        self.tpm.pcr_read(&PcrSelection::all_sha256()).expect("read")
    }

    /// One quote of 24 PCRs: a single command, if these are their values.
    pub fn quote_expecting(&mut self, values: PcrValues) {
        let purpose = QualifyingData::bind(Purpose::GuestAttest, &Nonce([1; 32]), &[]);
        let (pcrs, auth) = (PcrSelection::all_sha256(), AuthValue::empty());
        let quote = self.tpm.quote_expecting(&self.ak, &auth, &purpose, &pcrs, values);
        assert!(quote.is_ok(), "{quote:?}");
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
