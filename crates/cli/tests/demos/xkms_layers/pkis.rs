//! Three PKIs behind one centre, and a bridge: the centre's own CA, a partner's that speaks CMP, and
//! one of the web that speaks ACME. The bridge certified the partner's CA, and whoever runs the own
//! PKI trusts the bridge; nothing leads to the third.

use std::{fs, path::PathBuf};

use model::{
    OrderId,
    api::{
        Bytes,
        service::{Certified, Service, ServiceKey},
    },
    centre::{CentreOrder, CentreOutcome, CentreProgress, CentreWork},
    keys::{KeyUse, UseWith, order::Prototype},
};
use pki::{Ca, CaSpec, KeyUses, Profile, UserCert};
use serde_json::json;
use serve::{keys::SigningKey, pem};

use crate::{
    checks::Checks,
    foreign::{Acme, Elsewhere, Foreign, root, serve_cmp, today, web_request},
    world::{Said, World, run},
};

/// Names that keys have at the other two.
pub const PARTNERS: &str = "partner-key";
pub const WEBS: &str = "www.example.org";

/// The two foreign PKIs, which end with it.
pub struct Pkis {
    dir: PathBuf,
    /// The partner's only customer.
    key: SigningKey,
    _servers: (Foreign, Acme),
}

impl Pkis {
    /// Starts both, and writes what the centre's configuration says of them: it counts from the
    /// centre's next start.
    pub fn start(world: &World) -> Self {
        let dir = world.path("centre");
        let (partner, bridge) = (root("Partner CA"), root("Bridge CA"));
        let key = SigningKey::generate().expect("a key");
        let uses = KeyUses { signature: true, ..KeyUses::default() };
        let cert = UserCert { name: PARTNERS.to_owned(), uses, ..UserCert::default() };
        let issued = partner.issue(&Profile::User(cert), key.spki(), today()).expect("issued").der;
        let (cmp, url) = serve_cmp(&dir, &partner, &issued);
        let acme = Acme::start(&dir);
        bridged(&dir, &partner, &bridge);
        let folder = dir.join("centre.d");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("pkis.toml"), config(&url, &acme)).expect("a file");
        Self { dir, key, _servers: (cmp, acme) }
    }

    /// A key of each is ordered at the centre as the trust service of host a orders: with the
    /// passport that its agent gives.
    pub fn ordered(&self, world: &World, checks: &mut Checks) {
        let files = passport(world, Service::Trust);
        let subject = Prototype {
            key: Some(Bytes(self.key.spki().to_vec())),
            name: Some(PARTNERS.to_owned()),
            uses: vec![KeyUse::Signature],
            ..Prototype::default()
        };
        let work = CentreWork::Enrol { subject, request: None };
        let seen = order(world, &files, "partner", work);
        checks.check("a PKI that speaks CMP certifies a key", seen == "certified", seen);
        let (request, spki) = web_request(&self.dir, WEBS);
        let application = "urn:ietf:rfc:2818".to_owned();
        let subject = Prototype {
            key: Some(Bytes(spki)),
            name: Some(WEBS.to_owned()),
            uses: vec![KeyUse::Signature],
            use_with: vec![UseWith { application, identifier: WEBS.to_owned() }],
            ..Prototype::default()
        };
        let work = CentreWork::Enrol { subject, request: Some(Bytes(request)) };
        let seen = order(world, &files, "web", work);
        checks.check("a PKI that speaks ACME certifies another", seen == "certified", seen);
    }
}

/// The bridge's word for the partner's CA, and both CAs' lists of what they revoked: nothing.
fn bridged(dir: &std::path::Path, partner: &Ca, bridge: &Ca) {
    let facts = pki::CertFacts::read(partner.certificate()).expect("a certificate");
    let spec = CaSpec { common_name: "Partner CA".to_owned(), path_length: 0, validity: today() };
    let cross = bridge.create_sub_for(&spec, Box::new(Elsewhere(facts.spki))).expect("certified");
    pem::write_certificates(&dir.join("cross.pem"), &[cross.certificate()]).expect("a file");
    pem::write_certificates(&dir.join("bridge.pem"), &[bridge.certificate()]).expect("a file");
    for (file, ca) in [("partner.crl", partner), ("bridge.crl", bridge)] {
        let list = ca.issue_crl(1, today(), &[]).expect("a list");
        fs::write(dir.join(file), list).expect("a file");
    }
}

/// What refines `centre.toml`.
fn config(cmp: &str, acme: &Acme) -> String {
    let own = json!({"name": "own", "anchors": ["bridge.pem"],
        "provider": {"own": {"ca_name": "Vouchsafe lab centre"}}});
    let partner = json!({"name": "partner", "anchors": ["foreign.pem"], "cross": ["cross.pem"],
        "crls": ["partner.crl", "bridge.crl"], "back_off_ms": 200,
        "provider": {"cmp": {"url": cmp, "reference": "vouchsafe", "secret": {"path": "secret"}}}});
    let listen = format!("127.0.0.1:{}", acme.challenges);
    let web = json!({"name": "web", "anchors": ["web-root.pem"], "back_off_ms": 200,
        "provider": {"acme": {"directory": acme.directory, "terms_agreed": true,
            "tls_anchors": ["web.pem"], "challenge_listen": listen}}});
    let tenants = json!([{"name": "lab", "domains": ["own"]},
        {"name": "partner", "domains": ["partner", "web"], "hosts": ["a"]}]);
    let all = json!({"centre": {"domain": [own, partner, web], "tenant": tenants}});
    toml::to_string(&toml::Table::try_from(all).expect("a table")).expect("TOML")
}

/// Files of a passport of host a and of its key.
pub fn passport(world: &World, service: Service) -> [String; 2] {
    let key = SigningKey::generate().expect("a key");
    let asked = ServiceKey { spki: Bytes(key.spki().to_vec()) };
    let asked = serde_json::to_string(&asked).expect("JSON");
    let url = format!("http://agent/v1/services/{service}/certify");
    let agent = world.path("run/a.agent");
    let agent = agent.to_str().expect("a plain path");
    let json = "content-type: application/json";
    let said = run("curl", &["-s", "--unix-socket", agent, "-H", json, "-d", &asked, &url]);
    let certified: Certified = serde_json::from_str(&said.stdout).expect("a passport");
    let files = ["pem", "key"].map(|end| world.path(&format!("{service}-passport.{end}")));
    pem::write_certificates(&files[0], &[&certified.certificate.0]).expect("a file");
    pem::write_key(&files[1], &key.to_pkcs8().expect("a key")).expect("a file");
    files.map(|file| file.to_str().expect("a plain path").to_owned())
}

/// Has the centre carry out an order: what came of it.
fn order(world: &World, [cert, key]: &[String; 2], domain: &str, work: CentreWork) -> String {
    let id = OrderId(serve::random::bytes().expect("randomness"));
    let (tenant, domain) = ("partner".parse(), domain.parse());
    let (tenant, domain) = (tenant.expect("a name"), domain.expect("a name"));
    let order = serde_json::to_string(&CentreOrder { id, tenant, domain, work }).expect("JSON");
    let url = world.record()["centre"]["url"].as_str().unwrap_or_default().to_owned();
    // Who the centre is, trust services ask of it; this caller is only its client.
    let curl = |more: &[&str]| -> Said {
        run("curl", &[&["-sk", "--cert", cert, "--key", key], more].concat())
    };
    let json = "content-type: application/json";
    let mut said = curl(&["-H", json, "-d", &order, &format!("{url}/v1/orders")]);
    for _ in 0..30 {
        match serde_json::from_str(&said.stdout) {
            Ok(CentreProgress::Done(CentreOutcome::Certified { .. })) => {
                return "certified".to_owned();
            }
            Ok(progress) if !CentreProgress::is_final(&progress) => {}
            _ => break,
        }
        said = curl(&[&format!("{url}/v1/orders/{id}?wait_s=20")]);
    }
    format!("{} {}", said.stdout, said.stderr)
}
