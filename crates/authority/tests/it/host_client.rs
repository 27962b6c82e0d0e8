//! The agent's part of the protocol, spoken with a genuine software TPM: what an honest host says,
//! and, step by step, what no honest host would say.

use std::cell::RefCell;

use attest::eventlog::{Builder, EventType};
use model::{
    Digest, HashAlg, HostId, Nonce,
    api::enrol::{
        Challenge, ChallengePurpose, ChallengeRequest, EnrolChallenge, EnrolProof, EnrolRequest,
        Enrolled, HostEvidence, HostSession,
    },
};
use serve::{
    client::Identity,
    clock::{Clock as _, SystemClock},
    hpke::{self, HpkePrivate, HpkePublic},
    keys::SigningKey,
};
use tpm::{
    Auth, AuthValue, Credential, Hierarchy, PcrSelection, Public, Purpose, QualifyingData, Tpm,
    TpmError, handle, template,
};

use crate::support::{Caller, Refused, SoftwareTpm};

/// The measured boot that the tests' reference values endorse.
const BOOT: [(u8, EventType, &str); 4] = [
    (0, EventType::S_CRTM_VERSION, "test firmware"),
    (7, EventType::IPL, "vouchsafe:policy"),
    (14, EventType::IPL, "vouchsafe:host"),
    (14, EventType::IPL, "vouchsafe:qemu"),
];

fn sha256(bytes: &[u8]) -> Digest {
    let value = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest::new(HashAlg::Sha256, value.as_ref()).unwrap()
}

/// The log of a machine that booted as endorsed.
pub(crate) fn measured_boot() -> Vec<u8> {
    let mut log = Builder::new(&[HashAlg::Sha256]);
    for (pcr, kind, name) in BOOT {
        log.event(pcr, kind, &[sha256(name.as_bytes())], name.as_bytes()).unwrap();
    }
    log.finish()
}

/// Keys of one session.
pub(crate) struct SessionKeys {
    pub(crate) tls: SigningKey,
    pub(crate) grant_private: HpkePrivate,
    pub(crate) grant_key: HpkePublic,
}

impl SessionKeys {
    pub(crate) fn new() -> Self {
        let (grant_private, grant_key) = hpke::generate().unwrap();
        Self { tls: SigningKey::generate().unwrap(), grant_private, grant_key }
    }
}

/// A host in a session.
pub(crate) struct InSession {
    pub(crate) caller: Caller,
    pub(crate) keys: SessionKeys,
    pub(crate) session: HostSession,
}

/// A host.
pub(crate) struct HostClient {
    pub(crate) name: HostId,
    pub(crate) tpm: SoftwareTpm,
    pub(crate) log: Vec<u8>,
    pub(crate) ek: Public,
    pub(crate) ak: Public,
    pub(crate) ek_certificate: Vec<u8>,
    /// From the last enrolment.
    pub(crate) ak_certificate: RefCell<Vec<u8>>,
    url: String,
    anchors: Vec<Vec<u8>>,
}

impl HostClient {
    /// A machine that booted as endorsed. It has no EK certificate yet.
    pub(crate) fn new(name: &str, tpm: SoftwareTpm, url: &str, anchors: Vec<Vec<u8>>) -> Self {
        let (ek, ak) = tpm.actor.run(boot).unwrap();
        Self {
            name: name.parse().unwrap(),
            tpm,
            log: measured_boot(),
            ek,
            ak,
            ek_certificate: Vec::new(),
            ak_certificate: RefCell::default(),
            url: url.to_owned(),
            anchors,
        }
    }

    /// Has the EK certified.
    pub(crate) fn certify_ek(&mut self, issue: impl FnOnce(&[u8]) -> Vec<u8>) {
        self.ek_certificate = issue(&self.ek.spki_der().unwrap());
    }

    /// The authority answers elsewhere now.
    pub(crate) fn moved(&mut self, url: &str) {
        url.clone_into(&mut self.url);
    }

    /// A caller without a certificate.
    pub(crate) fn anyone(&self) -> Caller {
        Caller::new(&self.url, &self.anchors, None)
    }

    /// What an honest host sends to enrol.
    pub(crate) fn enrol_request(&self, token: &str) -> EnrolRequest {
        EnrolRequest {
            host: self.name.clone(),
            token: token.to_owned(),
            ek_certificate: self.ek_certificate.clone().into(),
            ek_intermediates: Vec::new(),
            ek_public: self.ek.as_bytes().to_vec().into(),
            ak_public: self.ak.as_bytes().to_vec().into(),
        }
    }

    /// Enrols by credential activation.
    pub(crate) fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, Refused> {
        let challenge: EnrolChallenge = self.anyone().post("/v1/hosts/enrol", request)?;
        let secret = self.activate(&challenge)?;
        self.prove(&challenge, secret)
    }

    /// Opens the credential, if this TPM can.
    pub(crate) fn activate(&self, challenge: &EnrolChallenge) -> Result<Vec<u8>, Refused> {
        let credential = Credential {
            id_object: challenge.credential_blob.0.clone(),
            encrypted_seed: challenge.encrypted_secret.0.clone(),
        };
        let opened = self.tpm.actor.run(move |tpm| {
            let ak = persistent(tpm, handle::HOST_AK)?;
            let ek = persistent(tpm, handle::EK)?;
            let empty = AuthValue::empty();
            tpm.activate_credential(&ak, &empty, &ek, &empty, &credential)
        });
        let secret = opened.map_err(|error| serve::exit::chain(&error))?;
        Ok(secret.expose().clone())
    }

    /// Sends the opened secret.
    pub(crate) fn prove(
        &self,
        challenge: &EnrolChallenge,
        secret: Vec<u8>,
    ) -> Result<Enrolled, Refused> {
        let path = format!("/v1/hosts/enrol/{}", challenge.enrolment);
        let enrolled: Enrolled =
            self.anyone().post(&path, &EnrolProof { secret: secret.into() })?;
        self.ak_certificate.replace(enrolled.ak_certificate.0.clone());
        Ok(enrolled)
    }

    /// Asks for a nonce with a clock that shows `now`.
    pub(crate) fn challenge_at(&self, now: u64) -> Result<Challenge, Refused> {
        let purpose = ChallengePurpose::HostAttest;
        let request = ChallengeRequest { host: self.name.clone(), purpose, now };
        self.anyone().post("/v1/challenges", &request)
    }

    /// Asks for a nonce.
    pub(crate) fn challenge(&self) -> Result<Challenge, Refused> {
        self.challenge_at(SystemClock.unix_ms())
    }

    /// Evidence with a quote made for `purpose`.
    pub(crate) fn evidence_for(
        &self,
        purpose: Purpose,
        nonce: Nonce,
        pcrs: &[u8],
        keys: &SessionKeys,
    ) -> HostEvidence {
        let parts: [&[u8]; 2] = [keys.tls.spki(), &keys.grant_key.0];
        let qualifying = QualifyingData::bind(purpose, &nonce, &parts);
        let selection = PcrSelection::sha256(pcrs);
        let quoted = self.tpm.actor.run(move |tpm| {
            let ak = persistent(tpm, handle::HOST_AK)?;
            tpm.quote(&ak, &AuthValue::empty(), &qualifying, &selection)
        });
        let quote = quoted.unwrap();
        HostEvidence {
            nonce,
            session_key: keys.tls.spki().to_vec().into(),
            grant_key: keys.grant_key.0.clone().into(),
            ak_public: self.ak.as_bytes().to_vec().into(),
            quote: quote.attest.into(),
            signature: quote.signature.into(),
            event_log: self.log.clone().into(),
            guard_counter: None,
        }
    }

    /// Honest evidence.
    pub(crate) fn evidence(&self, challenge: &Challenge, keys: &SessionKeys) -> HostEvidence {
        self.evidence_for(Purpose::HostAttest, challenge.nonce, &challenge.pcrs, keys)
    }

    /// Sends evidence.
    pub(crate) fn attest(&self, evidence: &HostEvidence) -> Result<HostSession, Refused> {
        self.anyone().post(&format!("/v1/hosts/{}/attest", self.name), evidence)
    }

    /// A whole honest round.
    pub(crate) fn session(&self) -> Result<InSession, Refused> {
        let keys = SessionKeys::new();
        let session = self.attest(&self.evidence(&self.challenge()?, &keys))?;
        Ok(self.enter(keys, session))
    }

    /// Connects with a session's certificate.
    pub(crate) fn enter(&self, keys: SessionKeys, session: HostSession) -> InSession {
        let chain = vec![session.certificate.0.clone()];
        let identity = Identity { chain, key: keys.tls.to_pkcs8().unwrap() };
        let caller = Caller::new(&self.url, &self.anchors, Some(&identity));
        InSession { caller, keys, session }
    }

    /// Extends a PCR and, if `logged`, says so in the log.
    pub(crate) fn measure(&mut self, pcr: u8, name: &str, logged: bool) {
        let digest = sha256(name.as_bytes());
        self.tpm.actor.run(move |tpm| tpm.pcr_extend(pcr, &[digest])).unwrap();
        if logged {
            let mut tail = Builder::new(&[HashAlg::Sha256]);
            let header = tail.as_bytes().len();
            tail.event(pcr, EventType::IPL, &[digest], name.as_bytes()).unwrap();
            self.log.extend_from_slice(&tail.as_bytes()[header..]);
        }
    }
}

fn persistent(tpm: &mut Tpm, handle: u32) -> Result<tpm::Object, TpmError> {
    Ok(tpm.persistent(handle)?.expect("the object was persisted"))
}

/// Makes EK and AK and measures the boot.
fn boot(tpm: &mut Tpm) -> Result<(Public, Public), TpmError> {
    let empty = AuthValue::empty();
    let ek = tpm.scoped(|tpm| {
        let ek =
            tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ek_p256(), &empty)?;
        tpm.persist(Hierarchy::Owner, Auth::none(), &ek, handle::EK)
    })?;
    let ak = tpm.scoped(|tpm| {
        let ak =
            tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ak_p256(), &empty)?;
        tpm.persist(Hierarchy::Owner, Auth::none(), &ak, handle::HOST_AK)
    })?;
    for (pcr, _, name) in BOOT {
        tpm.pcr_extend(pcr, &[sha256(name.as_bytes())])?;
    }
    Ok((ek.public().clone(), ak.public().clone()))
}
