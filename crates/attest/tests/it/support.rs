//! A TPM in software, as far as quoting goes: an AK whose signatures are real, so that each
//! rejection is provoked by evidence that is genuine but for one thing. For tests and benches alike.

use std::sync::Arc;

use attest::{
    Challenge, Signed,
    envelope::{Envelope, Kind, SoftwareKey, TrustedKeys},
    eventlog::EventLog,
    host::{EnrolledAk, HostPolicy, HostRoot},
    reference::{HostReference, ReferenceValues},
    result::Assurance,
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    },
};
use model::{Digest, HashAlg, Nonce, api::enrol::HostEvidence};
use tpm::{Public, QualifyingData, Signature};

/// Restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth.
pub(crate) const AK: u32 = 0x0005_0072;
pub(crate) const NOW: u64 = 1_800_000_000_000;
pub(crate) const QUOTE: u16 = 0x8018;

pub(crate) fn signing_key() -> SoftwareKey {
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
    SoftwareKey::from_pkcs8(pkcs8.as_ref()).unwrap()
}

/// An AK in software.
pub(crate) struct SoftAk {
    pair: EcdsaKeyPair,
    pub(crate) public: Public,
}

impl SoftAk {
    pub(crate) fn new(attributes: u32) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let mut area = vec![0, 0x23, 0, 0x0b];
        area.extend_from_slice(&attributes.to_be_bytes());
        // no policy; no symmetric; ECDSA with SHA-256; P-256; no KDF
        area.extend_from_slice(&[0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10]);
        sized(&mut area, &point[1..33]);
        sized(&mut area, &point[33..]);
        Self { pair, public: Public::parse(&area).unwrap() }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message).unwrap();
        Signature::from_p1363(signature.as_ref().try_into().unwrap()).to_bytes()
    }

    /// TPMS_ATTEST of a quote, and its signature.
    pub(crate) fn quote(
        &self,
        qualifying: &[u8],
        banks: &[(HashAlg, &[u8])],
        digest: &[u8; 32],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut body = u32::try_from(banks.len()).unwrap().to_be_bytes().to_vec();
        for (alg, pcrs) in banks {
            let mask = pcrs.iter().fold(0_u32, |mask, pcr| mask | (1 << pcr));
            body.extend_from_slice(&alg.tpm_id().to_be_bytes());
            body.push(3);
            body.extend_from_slice(&mask.to_le_bytes()[..3]);
        }
        sized(&mut body, digest);
        self.attest(QUOTE, qualifying, &body)
    }

    /// TPMS_ATTEST of any type, and its signature.
    pub(crate) fn attest(&self, kind: u16, qualifying: &[u8], body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut attest = 0xff54_4347_u32.to_be_bytes().to_vec();
        attest.extend_from_slice(&kind.to_be_bytes());
        sized(&mut attest, self.public.name().as_bytes());
        sized(&mut attest, qualifying);
        attest.extend_from_slice(&[0; 8 + 4 + 4]);
        attest.push(1);
        attest.extend_from_slice(&[0; 8]);
        attest.extend_from_slice(body);
        let signature = self.sign(&attest);
        (attest, signature)
    }
}

pub(crate) fn sized(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend_from_slice(data);
}

/// Signs and verifies reference values: the only way to get a proof.
pub(crate) fn endorsed(values: &ReferenceValues) -> Signed<ReferenceValues> {
    let key = signing_key();
    let envelope = Envelope::sign(Kind::ReferenceValues, values, &[&key]).unwrap();
    let keys = TrustedKeys::new([key.spki()]).unwrap();
    envelope.verify(&keys, Kind::ReferenceValues, 1).unwrap()
}

/// A host with an AK, a log, and the policy that approves of both.
pub(crate) struct TestHost {
    pub(crate) ak: SoftAk,
    pub(crate) log: Vec<u8>,
    pub(crate) pcrs: Vec<u8>,
    pub(crate) policy: HostPolicy,
    pub(crate) challenge: Challenge,
}

impl TestHost {
    pub(crate) fn with_log(log: Vec<u8>, pcrs: &[u8]) -> Self {
        let ak = SoftAk::new(AK);
        let values = ReferenceValues::from_log("test", NOW, &EventLog::parse(&log).unwrap(), pcrs);
        let policy = HostPolicy {
            host: "a".parse().unwrap(),
            ak: EnrolledAk::admit(ak.public.clone()).unwrap(),
            root: HostRoot {
                ek_subject: "EK of host a".to_owned(),
                ek_fingerprint: Digest::sha256([1; 32]),
                ek_issuer: "lab EK CA".to_owned(),
                ak_fingerprint: Digest::sha256([2; 32]),
                assurance: Assurance::Software,
            },
            reference: Arc::new(HostReference::new(&[endorsed(&values)], &[]).unwrap()),
            lifetime_ms: 60_000,
        };
        let challenge = Challenge { nonce: Nonce([7; 32]), expires_at: NOW + 30_000 };
        Self { ak, log, pcrs: pcrs.to_vec(), policy, challenge }
    }

    pub(crate) fn qualifying(&self) -> QualifyingData {
        attest::binding::host(&self.challenge.nonce, b"session key", b"grant key")
    }

    /// Genuine evidence over the host's log.
    pub(crate) fn evidence(&self) -> HostEvidence {
        self.evidence_with(self.qualifying().as_bytes())
    }

    pub(crate) fn evidence_with(&self, qualifying: &[u8]) -> HostEvidence {
        let digest = self.quote_digest(&self.log);
        let quote = self.ak.quote(qualifying, &[(HashAlg::Sha256, &self.pcrs)], &digest);
        self.evidence_of(quote)
    }

    pub(crate) fn quote_digest(&self, log: &[u8]) -> [u8; 32] {
        let log = EventLog::parse(log).unwrap();
        log.replay_sha256().unwrap().quote_digest(self.pcrs.iter().copied())
    }

    pub(crate) fn evidence_of(&self, (quote, signature): (Vec<u8>, Vec<u8>)) -> HostEvidence {
        HostEvidence {
            nonce: self.challenge.nonce,
            session_key: b"session key".to_vec().into(),
            grant_key: b"grant key".to_vec().into(),
            ak_public: self.ak.public.as_bytes().to_vec().into(),
            quote: quote.into(),
            signature: signature.into(),
            event_log: self.log.clone().into(),
            guard_counter: None,
        }
    }
}
