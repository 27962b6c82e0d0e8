//! `vm attest --export`: evidence as files that stock tools read, with the commands.

use std::{fs, path::Path};

use model::api::vm::EvidenceExport;
use pki::{Anchors, Purpose, verify_chain};
use serve::{
    clock::{Clock as _, SystemClock},
    pem,
};

use crate::output::Failure;

/// What the folder's README says. The nonce goes where `NONCE` stands.
const README: &str = "\
The last appraised evidence of one guest, and what verifies it.

The quote, by the vTPM's host-owned AK (NONCE is the qualifyingData):

    tpm2_checkquote -u vtpm-ak.pem -m quote.msg -s quote.sig -q NONCE -g sha256

The certificates:

    openssl verify -x509_strict -CAfile ca.pem vtpm-ca.pem
    openssl verify -CAfile ca.pem -untrusted vtpm-ca.pem vtpm-ek-cert.pem vtpm-ak-cert.pem
    openssl verify -CAfile ca.pem host-ak-cert.pem

The guest's own event log, if it sent it (descriptions only; the verdict rests on observed.json):

    tpm2_eventlog guest-event-log.bin

observed.json   every extend that the vTPM's proxy saw, in order
verdict.json    the signed attestation result (DSSE) with the chain from hardware to kernel
";

/// Writes the folder.
pub(super) fn write(dir: &Path, export: &EvidenceExport) -> Result<(), Failure> {
    fs::create_dir_all(dir)?;
    let put = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, content)
            .map_err(|error| Failure::error(format!("{}: {error}", path.display()), ""))
    };
    let evidence = &export.evidence;
    put("quote.msg", &evidence.quote.0)?;
    put("quote.sig", &evidence.signature.0)?;
    let quoted = tpm::Attest::parse(&evidence.quote.0)?;
    let qualifying = hex::encode(quoted.extra_data);
    put("qualifying-data.hex", qualifying.as_bytes())?;
    let certificates = [
        ("ca.pem", &export.ca),
        ("vtpm-ca.pem", &export.vtpm_ca),
        ("vtpm-ek-cert.pem", &evidence.ek_certificate),
        ("vtpm-ak-cert.pem", &evidence.ak_certificate),
        ("host-ak-cert.pem", &export.host_ak_certificate),
        ("host-ek-cert.pem", &export.host_ek_certificate),
    ];
    for (name, der) in certificates {
        put(name, pem::encode("CERTIFICATE", &der.0)?.as_bytes())?;
    }
    let key = attestation_key(export)?;
    put("vtpm-ak.pem", pem::encode("PUBLIC KEY", &key)?.as_bytes())?;
    if let Some(log) = &evidence.guest_log {
        put("guest-event-log.bin", &log.0)?;
    }
    put("observed.json", &serde_json::to_vec_pretty(&evidence.observed)?)?;
    put("verdict.json", &serde_json::to_vec_pretty(&export.verdict)?)?;
    put("README", README.replace("NONCE", &qualifying).as_bytes())
}

/// The vTPM AK's public key, from its certificate, whose chain is verified first.
fn attestation_key(export: &EvidenceExport) -> Result<Vec<u8>, Failure> {
    let anchors = Anchors::new(&[&export.ca.0])?;
    let leaf = &export.evidence.ak_certificate.0;
    let now = SystemClock.now();
    let ak = verify_chain(leaf, &[&export.vtpm_ca.0], &anchors, now, Purpose::AttestationKey)?;
    Ok(ak.spki().to_vec())
}
