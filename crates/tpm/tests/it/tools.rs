//! Agreement with tpm2-tools, both ways.

use model::{Nonce, Secret};
use tpm::{
    Auth, AuthValue, Credential, Hierarchy, KeyBlob, PcrSelection, Policy, Public, Purpose,
    QualifyingData, handle, software, template,
};

use crate::{programs::have, support::Swtpm};

fn start() -> Option<Swtpm> {
    (have("tpm2_createek") && have("socat")).then(Swtpm::start).flatten()
}

#[test]
fn names_and_default_keys_are_those_of_tpm2_tools() {
    let Some(swtpm) = start() else { return };
    for (kind, alg) in [(template::ek_p256(), "ecc"), (template::ek_rsa2048(), "rsa")] {
        swtpm.tool_ok("tpm2_createek", &["-c", "ek.ctx", "-G", alg, "-u", "ek.pub"]);
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
        let theirs = Public::parse_sized(&swtpm.file("ek.pub")).unwrap();
        let mut tpm = swtpm.open();
        let auth = AuthValue::empty();
        let ours = tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &kind, &auth).unwrap();
        assert_eq!(&theirs, ours.public());
        tpm.persist(Hierarchy::Owner, Auth::none(), &ours, handle::EK).unwrap();
        tpm.flush(&ours).unwrap();
        drop(tpm);
        let args = ["-c", "0x81010001", "-n", "name", "-f", "der", "-o", "der"];
        swtpm.tool_ok("tpm2_readpublic", &args);
        assert_eq!(swtpm.file("name"), ours.name().as_bytes());
        assert_eq!(swtpm.file("der"), ours.public().spki_der().unwrap());
        swtpm.tool_ok("tpm2_evictcontrol", &["-c", "0x81010001"]);
    }
}

#[test]
fn tpm2_checkquote_accepts_our_quote() {
    let Some(swtpm) = start() else { return };
    let mut tpm = swtpm.open();
    let auth = AuthValue::empty();
    let kind = template::ak_p256();
    let ak = tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &kind, &auth).unwrap();
    let purpose = QualifyingData::bind(Purpose::HostAttest, &Nonce([9; 32]), &[]);
    let quote = tpm.quote(&ak, &auth, &purpose, &PcrSelection::all_sha256()).unwrap();
    drop(tpm);
    swtpm.write("ak.pub", &ak.public().to_sized());
    swtpm.write("attest", &quote.attest);
    swtpm.write("signature", &quote.signature);
    let nonce = model::Digest::sha256(*purpose.as_bytes()).hex();
    let common = ["-u", "ak.pub", "-m", "attest", "-s", "signature", "-g", "sha256", "-q"];
    swtpm.tool_ok("tpm2_checkquote", &[&common[..], &[&nonce]].concat());
    let other = "00".repeat(32);
    let refused = swtpm.tool("tpm2_checkquote", &[&common[..], &[&other]].concat());
    assert!(!refused.status.success());
}

/// tpm2-tools' credential file: magic, version, then TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
const HEADER: [u8; 8] = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];

#[test]
fn credentials_open_both_ways() {
    let Some(swtpm) = start() else { return };
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
    swtpm.write("secret", secret.expose());
    for alg in ["ecc", "rsa"] {
        swtpm.tool_ok("tpm2_createek", &["-c", "0x81010001", "-G", alg, "-u", "ek.pub"]);
        let args = ["-C", "0x81010001", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s"];
        swtpm.tool_ok(
            "tpm2_createak",
            &[&args[..], &["ecdsa", "-u", "ak.pub", "-n", "ak.name"]].concat(),
        );
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
        swtpm.tool_ok("tpm2_evictcontrol", &["-c", "ak.ctx", "0x81010002"]);
        let ek = Public::parse_sized(&swtpm.file("ek.pub")).unwrap();
        let ak = Public::parse_sized(&swtpm.file("ak.pub")).unwrap();
        assert_eq!(swtpm.file("ak.name"), ak.name().as_bytes());
        // Ours opens there.
        let ours = software::make_credential(&ek, &ak.name(), &secret).unwrap();
        swtpm.write("ours", &[&HEADER[..], &ours.to_bytes().unwrap()].concat());
        swtpm.tool_ok("tpm2_startauthsession", &["--policy-session", "-S", "s.ctx"]);
        swtpm.tool_ok("tpm2_policysecret", &["-S", "s.ctx", "-c", "e"]);
        let args = ["-c", "0x81010002", "-C", "0x81010001", "-i", "ours", "-o", "out", "-P"];
        swtpm.tool_ok("tpm2_activatecredential", &[&args[..], &["session:s.ctx"]].concat());
        swtpm.tool_ok("tpm2_flushcontext", &["s.ctx"]);
        assert_eq!(swtpm.file("out"), *secret.expose());
        // Theirs opens here.
        let name: String = ak.name().to_string();
        let args = ["-s", "secret", "-u", "ek.pub", "-n", &name, "-o", "theirs"];
        swtpm.tool_ok("tpm2_makecredential", &args);
        let file = swtpm.file("theirs");
        let theirs = Credential::parse(file.strip_prefix(&HEADER).unwrap()).unwrap();
        let mut tpm = swtpm.open();
        let empty = AuthValue::empty();
        let ek = tpm.persistent(handle::EK).unwrap().unwrap();
        let ak = tpm.persistent(handle::HOST_AK).unwrap().unwrap();
        let got = tpm.activate_credential(&ak, &empty, &ek, &empty, &theirs).unwrap();
        assert_eq!(got.expose(), secret.expose(), "{alg}");
        drop(tpm);
        swtpm.tool_ok("tpm2_evictcontrol", &["-c", "0x81010001"]);
        swtpm.tool_ok("tpm2_evictcontrol", &["-c", "0x81010002"]);
    }
}

#[test]
fn what_tpm2_tools_seal_we_unseal_and_the_reverse() {
    let Some(swtpm) = start() else { return };
    let selection = PcrSelection::sha256(&[0, 7]);
    let mut tpm = swtpm.open();
    let empty = AuthValue::empty();
    let kind = template::srk_p256();
    let srk = tpm.create_primary(Hierarchy::Owner, Auth::none(), &kind, &empty).unwrap();
    let srk = tpm.persist(Hierarchy::Owner, Auth::none(), &srk, handle::SRK).unwrap();
    let policy = Policy::new().pcr(&selection, &tpm.pcr_read(&selection).unwrap()).unwrap();
    let ours = tpm.seal(&srk, &policy.digest(), &b"sealed here".to_vec().into()).unwrap();
    drop(tpm);
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    // Theirs.
    let pcrs = ["-l", "sha256:0,7", "-L", "policy"];
    swtpm.tool_ok("tpm2_createpolicy", &[&["--policy-pcr"], &pcrs[..]].concat());
    assert_eq!(swtpm.file("policy"), policy.digest());
    swtpm.write("data", b"sealed there");
    let args = ["-C", "0x81000001", "-i", "data", "-L", "policy", "-u", "s.pub", "-r", "s.priv"];
    swtpm.tool_ok("tpm2_create", &args);
    let theirs = KeyBlob::parse(&[swtpm.file("s.pub"), swtpm.file("s.priv")].concat()).unwrap();
    let mut tpm = swtpm.open();
    assert_eq!(tpm.unseal(&srk, &theirs, &policy).unwrap().expose(), b"sealed there");
    drop(tpm);
    // Ours.
    swtpm.write("o.pub", &ours.public.to_sized());
    let length = u16::try_from(ours.private.len()).unwrap().to_be_bytes();
    swtpm.write("o.priv", &[&length[..], &ours.private].concat());
    let args = ["-C", "0x81000001", "-u", "o.pub", "-r", "o.priv", "-c", "o.ctx"];
    swtpm.tool_ok("tpm2_load", &args);
    let out = swtpm.tool_ok("tpm2_unseal", &["-c", "o.ctx", "-p", "pcr:sha256:0,7"]);
    assert_eq!(out, b"sealed here");
}
