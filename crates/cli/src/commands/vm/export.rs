//! `vm attest --export`: evidence as files that stock tools read, with the commands.

use std::{fs, path::Path};

use attest::envelope::Envelope;
use model::{
    HashAlg,
    api::{Bytes, vm::EvidenceExport},
};
use pki::{Anchors, Purpose, verify_chain};
use serve::{
    clock::{Clock as _, SystemClock},
    pem,
};

use crate::output::Failure;

/// What the folder's README says. The nonce goes where `NONCE` stands, the quote's PCRs where `PCRS`
/// does.
const README: &str = "\
The last appraised evidence of one guest, and what verifies it.

The quote, by the vTPM's host-owned AK (NONCE is the qualifyingData), and the PCR values that it
is over (pcr-values.bin: 32 bytes a PCR, in this order; replayed from observed.json):

    tpm2_checkquote -u vtpm-ak.pem -m quote.msg -s quote.sig -q NONCE -g sha256 \\
        -f pcr-values.bin -l sha256:PCRS

The certificates. The vTPM's and the host's AK by the authority's CA; the host's EK by its TPM's maker
(ek-roots.pem: the makers that the authority trusts; if the maker's root did not sign it directly,
add the maker's intermediate certificates with -untrusted):

    openssl verify -x509_strict -CAfile ca.pem vtpm-ca.pem
    openssl verify -CAfile ca.pem -untrusted vtpm-ca.pem vtpm-ek-cert.pem vtpm-ak-cert.pem
    openssl verify -CAfile ca.pem host-ak-cert.pem
    openssl verify -CAfile ek-roots.pem host-ek-cert.pem

The verdict, with the chain from hardware to kernel. verdict.json has it as a DSSE v1 envelope;
verdict.payload is the document in it, verdict.pae what was signed (DSSE's pre-authentication
encoding), verdict.sig the signature (ECDSA P-256 with SHA-256, DER), verdict-key.pem the authority's
signing key, which `vouchsafe audit export` gives too (audit-key.pem):

    openssl dgst -sha256 -verify verdict-key.pem -signature verdict.sig verdict.pae
    tail -c \"$(stat -c %s verdict.payload)\" verdict.pae | cmp - verdict.payload

The guest's own event log, if it sent it (descriptions only; the verdict rests on observed.json):

    tpm2_eventlog guest-event-log.bin

observed.json   every extend that the vTPM's proxy saw, in order
";

/// Writes the folder.
pub(super) fn write(dir: &Path, export: &EvidenceExport) -> Result<(), Failure> {
    crate::commands::folder(dir)?;
    let put = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, content)
            .map_err(|error| Failure::error(format!("{}: {error}", path.display()), ""))
    };
    let evidence = &export.evidence;
    put("quote.msg", &evidence.quote.0)?;
    put("quote.sig", &evidence.signature.0)?;
    let quoted = tpm::Attest::parse(&evidence.quote.0)?;
    let pcrs = quoted_pcrs(&quoted.attested);
    let qualifying = hex::encode(quoted.extra_data);
    put("qualifying-data.hex", qualifying.as_bytes())?;
    let replayed = attest::guest::replay(&evidence.observed)?;
    let values: Vec<u8> = pcrs.iter().flat_map(|pcr| replayed.value(*pcr)).collect();
    put("pcr-values.bin", &values)?;
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
    put("ek-roots.pem", certificates_of(&export.ek_roots)?.as_bytes())?;
    put("verdict.json", &serde_json::to_vec_pretty(&export.verdict)?)?;
    let envelope = Envelope::from_value(&export.verdict.verdict)?;
    put("verdict.payload", &envelope.payload.0)?;
    put("verdict.pae", &envelope.signed_bytes())?;
    if let Some(signature) = envelope.signatures.first() {
        put("verdict.sig", &signature.sig.0)?;
    }
    put("verdict-key.pem", pem::encode("PUBLIC KEY", &export.signing_key.0)?.as_bytes())?;
    let list: Vec<String> = pcrs.iter().map(ToString::to_string).collect();
    put("README", README.replace("NONCE", &qualifying).replace("PCRS", &list.join(",")).as_bytes())
}

fn certificates_of(all: &[Bytes]) -> Result<String, Failure> {
    let all: Vec<&[u8]> = all.iter().map(|der| der.0.as_slice()).collect();
    Ok(pem::certificates(&all)?)
}

/// The PCRs of the SHA-256 bank that the quote is over, in its order.
fn quoted_pcrs(attested: &tpm::Attested) -> Vec<u8> {
    let tpm::Attested::Quote { selection, .. } = attested else { return Vec::new() };
    let sha256 = selection.iter().filter(|(alg, _)| *alg == HashAlg::Sha256);
    sha256.map(|(_, pcr)| pcr).collect()
}

/// The vTPM AK's public key, from its certificate, whose chain is verified first.
fn attestation_key(export: &EvidenceExport) -> Result<Vec<u8>, Failure> {
    let anchors = Anchors::new(&[&export.ca.0])?;
    let leaf = &export.evidence.ak_certificate.0;
    let now = SystemClock.now();
    let ak = verify_chain(leaf, &[&export.vtpm_ca.0], &anchors, now, Purpose::AttestationKey)?;
    Ok(ak.spki().to_vec())
}
