//! Golden bytes: what each command looks like on the wire. Every command that the crate uses is
//! compared byte by byte, random octets apart; all of them must be accepted by `tpm2-protocol`'s
//! own validation, which shares no code with our marshalling.

#[path = "golden/canned.rs"]
mod canned;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use model::{Digest, HashAlg, Nonce};
use tpm::{
    Auth, AuthValue, Connect as _, Hierarchy, NvAttributes, NvPublic, Object, PcrSelection, Policy,
    Public, Purpose, QualifyingData, Signature, Tpm, Transport, TransportError, handle, software,
    template,
};
use tpm2_protocol::{data::TpmCc, frame::TpmCommand};

use crate::support::Swtpm;

type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// Records every command; passes it on, or refuses it with TPM_RC_FAILURE.
struct Recorder {
    log: Log,
    inner: Option<Box<dyn Transport>>,
}

impl Transport for Recorder {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.log.lock().unwrap().push(command.to_vec());
        match &mut self.inner {
            Some(inner) => inner.transmit(command),
            None => Ok(vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(command: &[u8]) {
    let validated = TpmCommand::cast(command).and_then(TpmCommand::validate);
    assert!(validated.is_ok(), "{validated:?}: {}", hex(command));
}

/// Each command once, with fixed values. The TPM refuses each, so nothing depends on answers.
fn everything_fixed(tpm: &mut Tpm) {
    let empty = AuthValue::empty();
    let auth = AuthValue::new(b"auth").unwrap();
    let _ = tpm.startup();
    let _ = tpm.shutdown();
    let _ = tpm.random(16);
    let _ = tpm.property(0x105);
    let _ = tpm.read_clock();
    let _ = tpm.pcr_banks();
    let _ = tpm.transient_handles();
    let _ = tpm.pcr_read(&PcrSelection::sha256(&[0, 7]));
    let digests = [Digest::sha256([1; 32]), Digest::new(HashAlg::Sha1, &[2; 20]).unwrap()];
    let _ = tpm.pcr_extend(16, &digests);
    let _ = tpm.pcr_reset(23);
    let _ = tpm.pcr_allocate(Auth::none(), &[HashAlg::Sha256]);
    let _ = tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ek_p256(), &empty);
    let _ =
        tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ek_rsa2048(), &empty);
    let _ = tpm.create_primary(Hierarchy::Owner, Auth::none(), &template::srk_p256(), &empty);
    let _ = tpm.create_primary(Hierarchy::Platform, Auth::none(), &template::ak_p256(), &auth);
    let _ = tpm.persistent(handle::HOST_AK);
    let index = NvPublic {
        index: handle::EK_CERT_P256,
        attributes: NvAttributes::EK_CERTIFICATE,
        policy: Vec::new(),
        size: 600,
    };
    let _ = tpm.nv_define(Hierarchy::Platform, Auth::none(), &index, &empty);
    let _ = tpm.nv_public(index.index);
    let _ = tpm.clear(Hierarchy::Lockout, Auth::Password(&auth));
}

const FIXED: &str = include_str!("../../vectors/tpm2/commands.hex");

#[test]
fn commands_with_fixed_values_have_golden_bytes() {
    let log = Log::default();
    let mut tpm = Tpm::new(Box::new(Recorder { log: Arc::clone(&log), inner: None }));
    everything_fixed(&mut tpm);
    let log = log.lock().unwrap();
    log.iter().for_each(|command| check(command));
    let got: String = log.iter().map(|command| hex(command) + "\n").collect();
    assert_eq!(got, FIXED, "\n{got}");
}

const WITH_OBJECTS: &str = include_str!("../../vectors/tpm2/commands-with-objects.hex");

#[test]
fn commands_with_objects_and_sessions_have_golden_bytes() {
    let log = Log::default();
    let mut tpm = Tpm::new(Box::new(canned::Canned { log: Arc::clone(&log) }));
    canned::everything_with_objects(&mut tpm);
    let log = log.lock().unwrap();
    // Duplicate, ECDH_ZGen, PolicyDuplicationSelect: they run nowhere else beside that parser.
    log.iter().filter(|command| [0x4b, 0x54, 0x88].contains(&command[9])).for_each(|c| check(c));
    let got: String = log.iter().map(|command| canned::shown(command) + "\n").collect();
    assert_eq!(got, WITH_OBJECTS, "\n{got}");
}

/// What stands after each `TpmCc::` in the sources below `dir`.
fn codes_in_use(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in_use(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for after in text.split("TpmCc::").skip(1) {
            let name = after.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            found.insert(name.to_owned());
        }
    }
}

#[test]
fn every_command_in_the_sources_has_golden_bytes() {
    let code = |line: &str| TpmCc::try_from(u32::from_str_radix(&line[12..20], 16).unwrap());
    let golden: BTreeSet<String> = FIXED
        .lines()
        .chain(WITH_OBJECTS.lines())
        .map(|line| format!("{:?}", code(line).unwrap()))
        .collect();
    let mut used = BTreeSet::new();
    codes_in_use(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
    let without: Vec<&String> = used.difference(&golden).collect();
    assert!(used.len() > 30 && without.is_empty(), "without golden bytes: {without:?}");
}

fn key(tpm: &mut Tpm, hierarchy: Hierarchy, kind: &template::Template) -> Object {
    tpm.create_primary(hierarchy, Auth::none(), kind, &AuthValue::empty()).unwrap()
}

/// A run through every command with a real TPM answering.
fn everything_real(tpm: &mut Tpm) {
    let empty = AuthValue::empty();
    let srk = key(tpm, Hierarchy::Owner, &template::srk_p256());
    let ak = key(tpm, Hierarchy::Endorsement, &template::ak_p256());
    let purpose = QualifyingData::bind(Purpose::Enrol, &Nonce([0; 32]), &[]);
    tpm.quote(&ak, &empty, &purpose, &PcrSelection::sha256(&[0])).unwrap();
    tpm.certify(&srk, &empty, &ak, &empty, &purpose).unwrap();
    let saved = tpm.save_context(&srk).unwrap();
    tpm.flush(&srk).unwrap();
    let srk = tpm.load_context(&saved, srk.public().clone()).unwrap();
    let counter = NvPublic {
        index: 0x0180_0001,
        attributes: NvAttributes::OWNER_COUNTER,
        policy: Vec::new(),
        size: 8,
    };
    tpm.nv_define(Hierarchy::Owner, Auth::none(), &counter, &empty).unwrap();
    tpm.nv_increment(None, Auth::none(), counter.index).unwrap();
    let value =
        *tpm.nv_read(None, &mut Auth::none(), counter.index).unwrap().first_chunk::<8>().unwrap();
    let policy = Policy::new()
        .nv(&counter, &empty, tpm::Comparison::Equal, &value, 0)
        .reset_count(tpm::Comparison::AtLeast, 0)
        .auth_value();
    let sealed = tpm.seal(&srk, &policy.digest(), &vec![1].into()).unwrap();
    tpm.unseal(&srk, &sealed, &policy).unwrap();
    let blob = software::wrap_sealed(srk.public(), &[0; 32], &vec![1].into()).unwrap();
    tpm.import(&srk, &blob).unwrap();
    tpm.flush(&srk).unwrap();
    let ek = key(tpm, Hierarchy::Endorsement, &template::ek_p256());
    let made = software::make_credential(ek.public(), ak.name(), &vec![1].into()).unwrap();
    tpm.activate_credential(&ak, &empty, &ek, &empty, &made).unwrap();
    let kept = tpm.persist(Hierarchy::Owner, Auth::none(), &ak, handle::HOST_AK).unwrap();
    tpm.evict(Hierarchy::Owner, Auth::none(), &kept).unwrap();
    let spki = ak.public().verifying_key().unwrap();
    let approver = Public::signing_key(&spki).unwrap();
    let forged = Policy::new().authorize(&approver, b"r", Some(Signature::from_p1363([1; 64])));
    let mut session = tpm.start_policy_session(None).unwrap();
    assert!(forged.satisfy(tpm, &mut session).unwrap_err().is_policy_refusal());
    tpm.end_session(session).unwrap();
    let mut session = tpm.start_hmac_session(&ek).unwrap();
    tpm.change_hierarchy_auth(Hierarchy::Lockout, &mut session, &empty, &empty).unwrap();
    tpm.nv_undefine(Hierarchy::Owner, Auth::none(), counter.index).unwrap();
}

#[test]
fn every_command_in_use_is_valid_for_an_independent_parser() {
    let Some(swtpm) = Swtpm::start() else { return };
    let log = Log::default();
    let inner = Some(swtpm.address().connect().unwrap());
    let mut tpm = Tpm::new(Box::new(Recorder { log: Arc::clone(&log), inner }));
    everything_real(&mut tpm);
    let log = log.lock().unwrap();
    let mut codes: Vec<u8> = log.iter().map(|command| command[9]).collect();
    for command in log.iter() {
        // LoadExternal without a private part is valid, and that parser does not know it.
        if command[9] != 0x67 {
            check(command);
        }
    }
    codes.sort_unstable();
    codes.dedup();
    assert!(codes.len() >= 27, "{} commands: {}", codes.len(), hex(&codes));
}
