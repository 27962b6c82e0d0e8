//! A centre whose own CA's key is in a softhsm2 token: it certifies, is killed, and goes on with the
//! same CA.

use std::{collections::BTreeMap, fs, sync::Arc};

use serve::{fsfile, pem};

use crate::{
    crash::{CONFIG, Process, agent, push},
    hsm,
    support::{Authority, enrol},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_of_the_centre_certifies_with_a_key_that_stays_in_its_token() {
    let dir = tempfile::tempdir().unwrap();
    if !hsm::make(dir.path(), "a centre with a token") {
        return;
    }
    fsfile::write_atomic(&dir.path().join("pin"), hsm::PIN.as_bytes(), 0o600).unwrap();
    let token = format!(
        "[centre.domain.provider.own.token]\nmodule = '{}'\nlabel = 'ca'\nkey = 'centre'\n\
         pin = {{ path = 'pin' }}\nfolders = ['tokens', 'softhsm2.conf']\n[[centre.tenant]]",
        hsm::MODULE
    );
    let config = CONFIG.replace("[[centre.tenant]]", &token);
    fs::write(dir.path().join("centre.toml"), config).unwrap();
    let authority = Authority::new();
    let stop = agent(Arc::clone(&authority.0), &dir.path().join("agent.sock")).await;
    let own = dir.path().join("state/ca-own.pem");
    let mut cas = Vec::new();
    for name in ["one", "two"] {
        let (process, url) = Process::start(dir.path()).await;
        let client = authority.trust(&url, "a").await;
        let (order, mut seen) = (enrol("acme", name), BTreeMap::new());
        push(&client, std::slice::from_ref(&order), &mut seen).await;
        let certificate = seen[&order.id].first().unwrap();
        let text = pem::certificates(&[certificate]).unwrap();
        fs::write(dir.path().join("leaf.pem"), text).unwrap();
        fs::copy(&own, dir.path().join("ca.pem")).unwrap();
        hsm::run("openssl", &["verify", "-CAfile", "ca.pem", "leaf.pem"], dir.path());
        cas.push(fs::read(&own).unwrap());
        drop(process);
    }
    assert_eq!(cas[0], cas[1]);
    stop.trigger();
}
