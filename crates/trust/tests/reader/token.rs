//! A trust service whose CA's key is in a softhsm2 token: made there at the first start, found at the
//! next one, and nowhere else.

use std::fs;

use serve::fsfile;

use crate::{hsm, service::Service};

/// What the configuration says, with this folder of tokens.
fn table(folder: &str) -> String {
    format!(
        "[keeper.token]\nmodule = '{}'\nlabel = 'ca'\nkey = 'trust'\npin = {{ path = 'pin' }}\n\
         folders = [{folder}]\n",
        hsm::MODULE
    )
}

#[tokio::test]
async fn a_ca_certifies_with_a_key_that_stays_in_its_token() {
    let dir = tempfile::tempdir().unwrap();
    if !hsm::make(dir.path(), "a trust service with a token") {
        return;
    }
    let pin = dir.path().join("pin");
    fsfile::write_atomic(&pin, hsm::PIN.as_bytes(), 0o600).unwrap();
    let folder = "'tokens', 'softhsm2.conf'";
    let service = Service::start_in(dir, false, true, &table(folder)).await.unwrap();
    let ca = service.get("/ca.pem").await.body;
    let crl = service.get("/crl.der").await.body;
    let dir = service.end();
    fs::write(dir.path().join("ca.pem"), &ca).unwrap();
    fs::write(dir.path().join("crl.der"), &crl).unwrap();
    let verify = ["crl", "-inform", "DER", "-in", "crl.der", "-CAfile", "ca.pem", "-noout"];
    hsm::run("openssl", &verify, dir.path());
    // Again: the same CA, and it signs.
    let service = Service::start_in(dir, false, true, &table(folder)).await.unwrap();
    assert_eq!(service.get("/ca.pem").await.body, ca);
    assert_eq!(service.get("/healthz").await.status, 200);
    let dir = service.end();
    // Without the token there is no CA: its key is not in the store.
    let error = Service::start_in(dir, false, true, "").await.err().unwrap();
    assert!(error.contains("neither added nor taken away"), "{error}");
}

#[tokio::test]
async fn a_token_that_refuses_ends_the_start_by_name() {
    let dir = tempfile::tempdir().unwrap();
    if !hsm::make(dir.path(), "a trust service with another PIN") {
        return;
    }
    fsfile::write_atomic(&dir.path().join("pin"), b"wrong", 0o600).unwrap();
    let more = table("'tokens', 'softhsm2.conf'");
    let error = Service::start_in(dir, false, true, &more).await.err().unwrap();
    assert!(error.contains("token-pin"), "{error}");
}
