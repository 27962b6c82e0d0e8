//! Who becomes known, and who does not.

use model::api::enrol::{EnrolChallenge, HostMode, HostView};
use tpm::{Auth, AuthValue, Hierarchy, Public, TpmError, template};

use crate::support::{Centre, Settings, SoftwareTpm};

#[test]
fn a_tpm_with_a_token_is_enrolled_once_and_waits_for_approval() {
    let centre = Centre::start();
    let host = centre.machine("a");
    let token = centre.token("a");
    let request = host.enrol_request(&token);
    let enrolled = host.enrol(&request).unwrap();
    assert_eq!(enrolled.mode, HostMode::Pending);
    // The answer was lost: the same TPM asks again and hears the same.
    let again = host.enrol(&request).unwrap();
    assert_eq!(again.ak_certificate, enrolled.ak_certificate);
    assert_eq!(host.session().err().as_deref(), Some("host-not-approved"));
    centre.approve("a", false);
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert_eq!((view.mode, view.trusted), (HostMode::Enforcing, false));
    assert!(centre.audited_events().iter().any(|event| event == "host-enrolled"));
}

#[test]
fn tokens_admit_one_tpm_under_one_name() {
    let centre = Centre::start();
    let (a, b) = (centre.machine("a"), centre.machine("b"));
    let unknown = a.enrol(&a.enrol_request(&"0".repeat(64)));
    assert_eq!(unknown.err().as_deref(), Some("token-unknown"));
    let token = centre.token("a");
    assert_eq!(b.enrol(&b.enrol_request(&token)).err().as_deref(), Some("token-unknown"));
    a.enrol(&a.enrol_request(&token)).unwrap();
    let mut stolen = b.enrol_request(&token);
    stolen.host = a.name.clone();
    assert_eq!(b.enrol(&stolen).err().as_deref(), Some("token-used"));
    // With a token of its own, another TPM still does not get a taken name.
    stolen.token = centre.token("a");
    assert_eq!(b.enrol(&stolen).err().as_deref(), Some("host-exists"));
    let audited = centre.audited_refusals();
    for name in ["token-unknown", "token-used", "host-exists"] {
        assert!(audited.iter().any(|n| n == name), "{name} is not in the audit log: {audited:?}");
    }
}

#[test]
fn an_ek_without_a_trusted_maker_is_refused() {
    let centre = Centre::start();
    let mut host = centre.machine("a");
    let token = centre.token("a");
    let other = Centre::prepare(&Settings::default());
    let honest = host.ek_certificate.clone();
    host.certify_ek(|spki| other.ek_certificate(spki));
    assert_eq!(host.enrol(&host.enrol_request(&token)).err().as_deref(), Some("ek-untrusted"));
    // A genuine certificate, but of another TPM's EK.
    let b = centre.machine("b");
    host.ek_certificate = b.ek_certificate.clone();
    assert_eq!(host.enrol(&host.enrol_request(&token)).err().as_deref(), Some("ek-untrusted"));
    host.ek_certificate = honest;
    assert!(host.enrol(&host.enrol_request(&token)).is_ok());
}

#[test]
fn software_tpms_are_refused_outside_the_lab() {
    let mut centre = Centre::prepare(&Settings::default());
    let path = centre.path("authority.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("allow_software_tpm = true\n", "")).unwrap();
    centre.run();
    let host = centre.machine("a");
    let refused = host.enrol(&host.enrol_request(&centre.token("a")));
    assert_eq!(refused.err().as_deref(), Some("ek-untrusted"));
}

#[test]
fn a_key_that_is_no_attestation_key_is_refused() {
    let centre = Centre::start();
    let mut host = centre.machine("a");
    // A storage key decrypts: it could be made to sign nothing, or anything.
    host.ak = other_key(&host.tpm, &template::srk_p256());
    let refused = host.enrol(&host.enrol_request(&centre.token("a")));
    assert_eq!(refused.err().as_deref(), Some("ak-wrong-attributes"));
}

#[test]
fn a_tpm_that_does_not_hold_the_ak_cannot_prove_it() {
    let centre = Centre::start();
    let (mut host, other) = (centre.machine("a"), centre.machine("b"));
    // The AK of another TPM: this TPM cannot open the credential.
    host.ak = other.ak.clone();
    let request = host.enrol_request(&centre.token("a"));
    let challenge: EnrolChallenge = host.anyone().post("/v1/hosts/enrol", &request).unwrap();
    assert!(host.activate(&challenge).is_err());
    let guessed = host.prove(&challenge, vec![0; 32]);
    assert_eq!(guessed.err().as_deref(), Some("credential-mismatch"));
    // A challenge is answered once.
    let again = host.prove(&challenge, vec![0; 32]);
    assert_eq!(again.err().as_deref(), Some("enrolment-unknown"));
}

fn other_key(tpm: &SoftwareTpm, template: &template::Template) -> Public {
    let template = template.clone();
    let made = tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let empty = AuthValue::empty();
            let key = tpm.create_primary(Hierarchy::Owner, Auth::none(), &template, &empty)?;
            Ok::<_, TpmError>(key.public().clone())
        })
    });
    made.unwrap()
}
