//! How many paths are validated in a second, on one core: against `openssl verify` in one process
//! over the same chains and the same pool, and against the bare signature check.
//!
//! Both sides read each leaf as PEM from its file, build its path over a pool that was read once,
//! and check signatures, dates, constraints and policies; `with-crl` also the CRL of the leaf's
//! issuer. `cold` reads the pool anew for each chain, so that no signature of a CA's certificate is
//! known from before; openssl keeps none. What a process of openssl takes before its first leaf is
//! taken off, by the difference of a run with all leaves and one with a single leaf.

#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may stop")]

#[path = "../tests/it/forge.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[allow(clippy::cast_possible_truncation, reason = "shared with the tests")]
mod forge;
#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod support;

use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use forge::{
    KEYS, MAPPINGS, NAME_CONSTRAINTS, Name, POLICIES, Plan, mappings, name_constraints, policies,
};
use pki::{Anchors, Evidence, Oid, Pool, Terms, Usage, validate};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use support::{NOW, openssl, write_pem};

const LEAVES: usize = 1500;
const RUNS: usize = 9;

/// Chains that differ in their leaves.
struct Field {
    case: &'static str,
    dir: tempfile::TempDir,
    pool: Vec<Vec<u8>>,
    root: Vec<u8>,
    crl: Option<Vec<u8>>,
    flags: &'static [&'static str],
    policy: bool,
}

impl Field {
    fn new(case: &'static str, pool: &[Plan], leaf: &Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Plan::root("A/Root", 0).make();
        let pool: Vec<_> = pool.iter().map(Plan::make).collect();
        write_pem(dir.path(), "root.pem", "CERTIFICATE", &root);
        fs::write(dir.path().join("pool.pem"), pool.iter().map(|der| pem(der)).collect::<String>())
            .unwrap();
        for at in 0..LEAVES {
            let leaf = leaf.clone().serial(1000 + u64::try_from(at).unwrap()).make();
            fs::write(dir.path().join(format!("{at}.pem")), pem(&leaf)).unwrap();
        }
        Self { case, dir, pool, root, crl: None, flags: &[], policy: false }
    }

    fn leaf(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{at}.pem"))
    }

    /// Seconds that openssl takes for the first `count` leaves, its start included.
    fn theirs(&self, count: usize) -> f64 {
        let time = NOW.unix_timestamp().to_string();
        let mut args = vec!["verify", "-no-CApath", "-no-CAstore", "-attime", &time];
        args.extend(["-CAfile", "root.pem"]);
        if !self.pool.is_empty() {
            args.extend(["-untrusted", "pool.pem"]);
        }
        args.extend(self.flags);
        let files: Vec<String> = (0..count).map(|at| format!("{at}.pem")).collect();
        args.extend(files.iter().map(String::as_str));
        let begun = Instant::now();
        let (ok, said) = openssl(self.dir.path(), &args);
        let taken = begun.elapsed().as_secs_f64();
        assert!(ok, "{said}");
        taken
    }

    /// Seconds that we take for all leaves.
    fn ours(&self, cold: bool) -> f64 {
        let anchors = Anchors::new(&[&self.root]).unwrap();
        let warm = Pool::new(&self.pool).unwrap();
        let mut evidence = Evidence::new();
        self.crl.iter().for_each(|crl| evidence.add_crl(crl).unwrap());
        let evidence = self.crl.is_some().then_some(&evidence);
        let mut terms = Terms::new(NOW, Usage::Any);
        if self.policy {
            terms.policies.insert(Oid::new_unwrap("1.2.3.1"));
            terms.require_policy = true;
        }
        let begun = Instant::now();
        for at in 0..LEAVES {
            let text = fs::read(self.leaf(at)).unwrap();
            let (_, leaf) = der::pem::decode_vec(&text).unwrap();
            let own = cold.then(|| Pool::new(&self.pool).unwrap());
            let pool = own.as_ref().unwrap_or(&warm);
            let validation = validate(&leaf, pool, &anchors, evidence, &terms).unwrap();
            assert!(validation.status().bad().count() == 0 && !validation.path().is_empty());
            black_box(validation);
        }
        begun.elapsed().as_secs_f64()
    }
}

fn pem(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
}

fn fields() -> Vec<Field> {
    let sub = Plan::ca("A/Sub", 1, "A/Root", 0);
    let leaf = Plan::new("A/leaf", 9, "A/Sub", 1);
    let plain = Field::new("chain-of-3", std::slice::from_ref(&sub), &leaf);
    let only_b = name_constraints(&[Name::Organization("B")], &[]);
    let bridge = [
        Plan::ca("Br/Bridge", 1, "A/Root", 0).with(&POLICIES, false, policies(&[1])).with(
            &MAPPINGS,
            true,
            mappings(&[(1, 2)]),
        ),
        Plan::ca("B/Root", 2, "Br/Bridge", 1)
            .with(&POLICIES, false, policies(&[2]))
            .with(&MAPPINGS, true, mappings(&[(2, 3)]))
            .with(&NAME_CONSTRAINTS, true, only_b),
        Plan::ca("B/CA", 3, "B/Root", 2).with(&POLICIES, false, policies(&[3])),
    ];
    let leaf_b = Plan::new("B/leaf", 9, "B/CA", 3).with(&POLICIES, false, policies(&[3]));
    let mut bridged = Field::new("bridge-of-5", &bridge, &leaf_b);
    bridged.flags = &["-policy", "1.2.3.1", "-explicit_policy"];
    bridged.policy = true;
    // A leaf directly below the root, so that one CRL says everything.
    let mut listed = Field::new("with-crl", &[], &Plan::new("A/leaf", 9, "A/Root", 0));
    let crl = crl(10_000);
    write_pem(listed.dir.path(), "crl.pem", "X509 CRL", &crl);
    listed.crl = Some(crl);
    listed.flags = &["-crl_check", "-CRLfile", "crl.pem"];
    vec![plain, bridged, listed]
}

/// A CRL of the root with `count` entries, none of which is a leaf.
fn crl(count: u64) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "A");
    params.distinguished_name.push(rcgen::DnType::CommonName, "Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::from_params(&params, &KEYS[0]);
    let entry = |serial: u64| rcgen::RevokedCertParams {
        serial_number: (1_000_000 + serial).into(),
        revocation_time: NOW,
        reason_code: None,
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: NOW,
        next_update: NOW + Duration::from_secs(86_400),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: (0..count).map(entry).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).unwrap().der().to_vec()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut json = String::new();
    println!("{:<18} {:>12} {:>12} {:>7}", "case", "ours/s", "openssl/s", "ratio");
    for field in fields() {
        let (mut warm, mut cold, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        let count = f64::from(u32::try_from(LEAVES).unwrap());
        for _ in 0..RUNS {
            warm.push(count / field.ours(false));
            if !field.pool.is_empty() {
                cold.push(count / field.ours(true));
            }
            theirs.push((count - 1.0) / (field.theirs(LEAVES) - field.theirs(1)));
        }
        let peer = median(theirs);
        for (suffix, ours) in [("", warm), ("-cold", cold)] {
            // Without a pool there is nothing to read anew.
            if ours.is_empty() {
                continue;
            }
            let ours = median(ours);
            let case = format!("{}{suffix}", field.case);
            let ratio = ours / peer;
            println!("{case:<18} {ours:>12.0} {peer:>12.0} {ratio:>7.2}");
            let comma = if json.is_empty() { "" } else { ",\n" };
            write!(
                json,
                "{comma}{{\"case\": \"{case}\", \"ours\": {ours:.1}, \"peer\": {peer:.1}, \
                 \"peer_name\": \"openssl verify\", \"unit\": \"paths/s\", \"ratio\": {ratio:.3}, \
                 \"runs\": {RUNS}}}"
            )
            .unwrap();
        }
    }
    save(&format!("[{json}]\n"));
}

fn save(json: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("pki.json"), json).unwrap();
}
