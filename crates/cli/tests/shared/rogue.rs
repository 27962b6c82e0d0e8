//! A host of our own making: it speaks the agent's part of the protocol with a genuine software TPM,
//! and so can say at each step what no honest agent would say.

use attest::eventlog::{Builder, EventType};
use cli::lab::{
    components::{find_all, measure},
    keys::LabKeys,
    layout::Layout,
    measured_boot,
    tpm::LabTpm,
};
use model::{
    Digest, Epoch, HashAlg, HostId, Nonce,
    api::{
        Bytes,
        enrol::{
            Challenge, ChallengePurpose, ChallengeRequest, EnrolChallenge, EnrolProof,
            EnrolRequest, Enrolled, HostEvidence, HostSession,
        },
        vm::GuestEvidence,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serve::{
    client::{CallError, Client, ClientLimits, Identity},
    clock::{Clock as _, SystemClock},
    hpke,
    keys::SigningKey,
    pem,
    process::ProcessId,
};
use tpm::{
    Auth, AuthValue, Credential, Hierarchy, PcrSelection, Public, Purpose, QualifyingData,
    TpmError, handle, template,
};

use crate::world::{PATIENCE, World, programs};

/// Name of a refusal, or words for what else went wrong.
pub type Refused = String;

fn name_of(error: CallError) -> Refused {
    error.refusal().map_or_else(|| serve::exit::chain(&error), str::to_owned)
}

/// Keys of one session.
pub struct SessionKeys {
    pub tls: SigningKey,
    pub grant_key: Vec<u8>,
}

impl SessionKeys {
    pub fn new() -> Self {
        let tls = SigningKey::generate().expect("a key");
        let (_private, public) = hpke::generate().expect("a key");
        Self { tls, grant_key: public.0 }
    }
}

/// The rogue host.
pub struct Rogue {
    pub name: HostId,
    pub log: Vec<u8>,
    tpm: LabTpm,
    process: ProcessId,
    ak: Public,
    ek: Public,
    ek_certificate: Vec<u8>,
    url: String,
    anchors: Vec<Vec<u8>>,
    runtime: tokio::runtime::Runtime,
}

impl Rogue {
    /// A machine whose TPM the lab's EK CA certified and whose measurements are the endorsed ones.
    pub fn new(world: &World, name: &str) -> Self {
        let name: HostId = name.parse().expect("a name");
        let layout = Layout::open(world.dir()).expect("a lab");
        let dir = world.path(&format!("rogue-{name}"));
        let keys = LabKeys::open_or_make(&layout).expect("the lab's keys");
        let (programs, distribution) = find_all(&programs()).expect("everything");
        let tpm = LabTpm::at(&layout.run().join(format!("rogue-{name}.tpm"))).expect("a TPM");
        let process = tpm
            .power_on(&distribution.swtpm, &dir, &layout.log(&format!("rogue-{name}")))
            .expect("swtpm");
        let mut ek_certificate = Vec::new();
        tpm.manufacture(|ek| {
            ek_certificate = keys.certify_ek(&name, ek)?;
            Ok(ek_certificate.clone())
        })
        .expect("manufactured");
        let log = measured_boot::measure(
            tpm.actor(),
            &measure(&programs, &distribution).expect("digests"),
        )
        .expect("measured");
        let (ek, ak) = tpm.actor().run(keys_of).expect("EK and AK");
        let record = world.record();
        let url = record["authority"]["url"].as_str().expect("a URL").to_owned();
        let ca = record["authority"]["ca_file"].as_str().expect("a file");
        let anchors = pem::read_certificates(ca.as_ref()).expect("a CA");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { name, log, tpm, process, ak, ek, ek_certificate, url, anchors, runtime }
    }

    /// A client with or without a certificate.
    fn client(&self, identity: Option<&Identity>) -> Client {
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        Client::https(&self.url, &self.anchors, identity, SystemClock::shared(), limits)
            .expect("a client")
    }

    /// One call without a certificate.
    pub fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Refused> {
        self.runtime.block_on(self.client(None).post(path, body)).map_err(name_of)
    }

    /// One call in a session.
    pub fn post_as<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        identity: &Identity,
        path: &str,
        body: &B,
    ) -> Result<T, Refused> {
        self.runtime.block_on(self.client(Some(identity)).post(path, body)).map_err(name_of)
    }

    pub fn enrol_request(&self, token: &str) -> EnrolRequest {
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
    pub fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, Refused> {
        let challenge: EnrolChallenge = self.post("/v1/hosts/enrol", request)?;
        let credential = Credential {
            id_object: challenge.credential_blob.0,
            encrypted_seed: challenge.encrypted_secret.0,
        };
        let secret = self
            .tpm
            .actor()
            .run(move |tpm| {
                let ak = tpm.persistent(handle::HOST_AK)?.ok_or(TpmError::TooLong)?;
                let ek = tpm.persistent(handle::EK)?.ok_or(TpmError::TooLong)?;
                let empty = AuthValue::empty();
                tpm.activate_credential(&ak, &empty, &ek, &empty, &credential)
            })
            .map_err(|error| serve::exit::chain(&error))?;
        let proof = EnrolProof { secret: secret.expose().clone().into() };
        self.post(&format!("/v1/hosts/enrol/{}", challenge.enrolment), &proof)
    }

    pub fn challenge_at(&self, now: u64) -> Result<Challenge, Refused> {
        let purpose = ChallengePurpose::HostAttest;
        self.post("/v1/challenges", &ChallengeRequest { host: self.name.clone(), purpose, now })
    }

    pub fn challenge(&self) -> Result<Challenge, Refused> {
        self.challenge_at(SystemClock.unix_ms())
    }

    /// Evidence with a quote made for `purpose`.
    pub fn evidence_for(
        &self,
        purpose: Purpose,
        challenge: &Challenge,
        keys: &SessionKeys,
    ) -> HostEvidence {
        let parts = [keys.tls.spki(), &keys.grant_key];
        let qualifying = QualifyingData::bind(purpose, &challenge.nonce, &parts);
        let quote = self.quote(qualifying, PcrSelection::sha256(&challenge.pcrs));
        HostEvidence {
            nonce: challenge.nonce,
            session_key: keys.tls.spki().to_vec().into(),
            grant_key: keys.grant_key.clone().into(),
            ak_public: self.ak.as_bytes().to_vec().into(),
            quote: quote.attest.into(),
            signature: quote.signature.into(),
            event_log: self.log.clone().into(),
            guard_counter: None,
        }
    }

    fn quote(&self, qualifying: QualifyingData, selection: PcrSelection) -> tpm::Quote {
        let quoted = self.tpm.actor().run(move |tpm| {
            let ak = tpm.persistent(handle::HOST_AK)?.ok_or(TpmError::TooLong)?;
            tpm.quote(&ak, &AuthValue::empty(), &qualifying, &selection)
        });
        quoted.expect("a quote")
    }

    /// A nonce for a guest's evidence.
    pub fn guest_challenge(&self, session: &Identity) -> Result<Challenge, Refused> {
        let (host, purpose) = (self.name.clone(), ChallengePurpose::GuestAttest);
        let request = ChallengeRequest { host, purpose, now: SystemClock.unix_ms() };
        self.post_as(session, "/v1/challenges", &request)
    }

    /// A guest's evidence, with this machine's TPM in the place of its vTPM.
    pub fn guest_evidence(
        &self,
        nonce: Nonce,
        vm: &str,
        ak_certificate: Bytes,
        ek_certificate: Bytes,
    ) -> GuestEvidence {
        let epoch = 1_u64.to_be_bytes();
        let parts: [&[u8]; 2] = [vm.as_bytes(), &epoch];
        let qualifying = QualifyingData::bind(Purpose::GuestAttest, &nonce, &parts);
        let quote = self.quote(qualifying, PcrSelection::all_sha256());
        GuestEvidence {
            nonce,
            epoch: Epoch(1),
            ak_certificate,
            ek_certificate,
            quote: quote.attest.into(),
            signature: quote.signature.into(),
            observed: Vec::new(),
            overflowed: false,
            unobservable: None,
            guest_log: None,
            ima_log: None,
        }
    }

    pub const fn ek(&self) -> &Public {
        &self.ek
    }

    pub const fn ak(&self) -> &Public {
        &self.ak
    }

    pub fn evidence(&self, challenge: &Challenge, keys: &SessionKeys) -> HostEvidence {
        self.evidence_for(Purpose::HostAttest, challenge, keys)
    }

    pub fn attest(&self, evidence: &HostEvidence) -> Result<HostSession, Refused> {
        self.post(&format!("/v1/hosts/{}/attest", self.name), evidence)
    }

    /// A whole honest round.
    pub fn session(&self) -> Result<(Identity, HostSession), Refused> {
        let keys = SessionKeys::new();
        let session = self.attest(&self.evidence(&self.challenge()?, &keys))?;
        let chain = vec![session.certificate.0.clone()];
        let key = keys.tls.to_pkcs8().expect("a key");
        Ok((Identity { chain, key }, session))
    }

    /// Extends a PCR and, if `logged`, says so in the log.
    pub fn measure(&mut self, pcr: u8, what: &[u8], logged: bool) {
        let value = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, what);
        let digest = Digest::new(HashAlg::Sha256, value.as_ref()).expect("SHA-256");
        self.tpm.actor().run(move |tpm| tpm.pcr_extend(pcr, &[digest])).expect("extended");
        if logged {
            let mut tail = Builder::new(&[HashAlg::Sha256]);
            let header = tail.as_bytes().len();
            tail.event(pcr, EventType::IPL, &[digest], what).expect("an event");
            self.log.extend_from_slice(&tail.as_bytes()[header..]);
        }
    }

    /// The AK of another key: fresh, not enrolled.
    pub fn other_ak(&self) -> Vec<u8> {
        let made = self.tpm.actor().run(|tpm| {
            tpm.scoped(|tpm| {
                let key = tpm.create_primary(
                    Hierarchy::Owner,
                    Auth::none(),
                    &template::ak_p256(),
                    &AuthValue::empty(),
                )?;
                Ok::<_, TpmError>(key.public().as_bytes().to_vec())
            })
        });
        made.expect("a key")
    }
}

fn keys_of(tpm: &mut tpm::Tpm) -> Result<(Public, Public), TpmError> {
    let ek = tpm.persistent(handle::EK)?.ok_or(TpmError::TooLong)?.public().clone();
    let ak = tpm.scoped(|tpm| {
        let ak = tpm.create_primary(
            Hierarchy::Endorsement,
            Auth::none(),
            &template::ak_p256(),
            &AuthValue::empty(),
        )?;
        tpm.persist(Hierarchy::Owner, Auth::none(), &ak, handle::HOST_AK)
    })?;
    Ok((ek, ak.public().clone()))
}

impl Drop for Rogue {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _waited = self.process.wait_exit_blocking(PATIENCE);
    }
}

/// A nonce that nobody gave out.
pub const INVENTED: Nonce = Nonce([0x11; 32]);
