//! How many full host appraisals one core does in a second: against the bare signature check of the
//! same library, and against `tpm2_checkquote` with `tpm2_eventlog` on the same evidence.
//!
//! An appraisal here is everything that [`attest::host::appraise_host`] does with the evidence of a
//! host: AK, nonce, signature, binding, PCR selection, replay of OVMF's real log, comparison of each
//! event with reference values, claims. The AK and the reference values were verified before and are
//! used again, as a verifier does. Signing the result is measured apart.

#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may stop")]

#[path = "../tests/it/support.rs"]
mod support;

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use attest::host::appraise_host;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::api::enrol::HostEvidence;
use serde::Serialize;
use support::{NOW, TestHost, signing_key};
use tpm::Signature;

const OVMF: &[u8] = include_bytes!("../vectors/tcg/ovmf-guest.bin");
const PCRS: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 11];
const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(60);
const PROCESS_RUNS: usize = 40;

#[derive(Serialize)]
struct Case {
    case: &'static str,
    ours: f64,
    peer: Option<f64>,
    peer_name: Option<&'static str>,
    unit: &'static str,
    ratio: Option<f64>,
    runs: usize,
}

fn main() {
    let host = TestHost::with_log(OVMF.to_vec(), &PCRS);
    let evidence = host.evidence();
    let appraise =
        || appraise_host(black_box(&evidence), &host.policy, &host.challenge, NOW).unwrap();
    let spki = host.ak.public.spki_der().unwrap();
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki).unwrap();
    let Ok(Signature::Ecdsa { rs }) = Signature::parse(&evidence.signature.0) else { return };
    let verify = || key.verify_sig(black_box(&evidence.quote.0), black_box(&rs)).unwrap();
    let signer = signing_key();
    let appraised = appraise();
    let sign = || appraised.sign(&signer).unwrap();

    // Rounds alternate, so that a change of the machine's speed meets all alike.
    let (mut ours, mut limit, mut signing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(per_second(|| drop(black_box(appraise()))));
        limit.push(per_second(verify));
        signing.push(per_second(|| drop(black_box(sign()))));
    }
    let ratios: Vec<f64> = ours.iter().zip(&limit).map(|(ours, limit)| ours / limit).collect();
    let (ours, limit) = (median(ours), median(limit));
    let tools = Tools::prepare(&host, &evidence).and_then(|tools| tools.per_second());
    let cases = [
        Case {
            case: "vs-limit",
            ours,
            peer: Some(limit),
            peer_name: Some("bare P-256 verify of the same library"),
            unit: "appraisals/s on one core",
            ratio: Some(median(ratios)),
            runs: ROUNDS,
        },
        Case {
            case: "vs-tpm2-tools",
            ours,
            peer: tools,
            peer_name: Some("tpm2_checkquote + tpm2_eventlog"),
            unit: "appraisals/s on one core",
            ratio: tools.map(|tools| ours / tools),
            runs: PROCESS_RUNS,
        },
        Case {
            case: "result-signing",
            ours: median(signing),
            peer: None,
            peer_name: None,
            unit: "signed results/s on one core",
            ratio: None,
            runs: ROUNDS,
        },
    ];
    report(&cases);
}

fn per_second(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut count: u32 = 0;
    while start.elapsed() < ROUND {
        for _ in 0..50 {
            work();
        }
        count += 50;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(cases: &[Case]) {
    println!("{:<16} {:>12} {:>12} {:>9}  peer", "case", "ours/s", "peer/s", "ratio");
    for case in cases {
        let number = |value: Option<f64>, digits| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        println!(
            "{:<16} {:>12.0} {:>12} {:>9}  {}",
            case.case,
            case.ours,
            number(case.peer, 0),
            number(case.ratio, 2),
            case.peer_name.unwrap_or("-"),
        );
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("appraise.json"), serde_json::to_vec_pretty(cases).unwrap()).unwrap();
}

/// The evidence as files for tpm2-tools.
struct Tools {
    dir: tempfile::TempDir,
    nonce: String,
}

impl Tools {
    /// `None`, said aloud, if the tools are not installed.
    fn prepare(host: &TestHost, evidence: &HostEvidence) -> Option<Self> {
        if run("tpm2_checkquote", &["--version"], Path::new(".")).is_none() {
            println!("SKIPPED: tpm2-tools are not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let spki = STANDARD.encode(host.ak.public.spki_der().unwrap());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        fs::write(dir.path().join("ak.pem"), pem).unwrap();
        fs::write(dir.path().join("quote"), &evidence.quote.0).unwrap();
        fs::write(dir.path().join("signature"), &evidence.signature.0).unwrap();
        fs::write(dir.path().join("log"), &evidence.event_log.0).unwrap();
        Some(Self { dir, nonce: hex::encode(host.qualifying().as_bytes()) })
    }

    /// Both processes, one after the other.
    fn per_second(&self) -> Option<f64> {
        let check =
            ["-u", "ak.pem", "-m", "quote", "-s", "signature", "-g", "sha256", "-q", &self.nonce];
        let mut times = Vec::new();
        for _ in 0..PROCESS_RUNS {
            let start = Instant::now();
            run("tpm2_checkquote", &check, self.dir.path())?;
            run("tpm2_eventlog", &["log"], self.dir.path())?;
            times.push(start.elapsed().as_secs_f64());
        }
        Some(1.0 / median(times))
    }
}

fn run(program: &str, arguments: &[&str], dir: &Path) -> Option<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok()?.success().then_some(())
}
