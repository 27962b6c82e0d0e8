//! A VM's virtual TPM as its host drives it: manufactured, certified, booted with, quoted.

use model::{
    Digest, Epoch, HashAlg,
    api::vm::{GuestEvidence, ObservedExtend, VtpmCertificates, VtpmPublics},
};
use tpm::{
    Auth, AuthValue, Hierarchy, PcrSelection, Public, Purpose, QualifyingData, Tpm, TpmError,
    handle, template,
};

use crate::support::{Centre, SoftwareTpm};

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let value = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest::new(HashAlg::Sha256, value.as_ref()).unwrap()
}

/// A VM's virtual TPM, as its host made it.
pub(crate) struct Vtpm {
    tpm: SoftwareTpm,
    ek: Public,
    ak: Public,
    observed: Vec<ObservedExtend>,
}

impl Vtpm {
    pub(crate) fn make(centre: &Centre, name: &str) -> Self {
        let tpm = SoftwareTpm::start(centre.dir.path(), name);
        let (ek, ak) = tpm.actor.run(manufacture).unwrap();
        Self { tpm, ek, ak, observed: Vec::new() }
    }

    pub(crate) fn publics(&self, epoch: u64) -> VtpmPublics {
        VtpmPublics {
            epoch: Epoch(epoch),
            ek_public: self.ek.as_bytes().to_vec().into(),
            ek_rsa_public: None,
            ak_public: self.ak.as_bytes().to_vec().into(),
        }
    }

    pub(crate) fn boots(&mut self, kernel: &[u8]) {
        let digest = sha256(kernel);
        self.tpm.actor.run(move |tpm| tpm.pcr_extend(4, &[digest])).unwrap();
        self.observed.push(ObservedExtend { pcr: 4, digests: vec![digest] });
    }

    pub(crate) fn evidence(
        &self,
        nonce: model::Nonce,
        vm: &str,
        certificates: &VtpmCertificates,
    ) -> GuestEvidence {
        let epoch = 1_u64.to_be_bytes();
        let parts: [&[u8]; 2] = [vm.as_bytes(), &epoch];
        let qualifying = QualifyingData::bind(Purpose::GuestAttest, &nonce, &parts);
        let selection = PcrSelection::all_sha256();
        let quoted = self.tpm.actor.run(move |tpm| {
            let ak = tpm.persistent(handle::VTPM_AK)?.expect("the AK was persisted");
            tpm.quote(&ak, &AuthValue::empty(), &qualifying, &selection)
        });
        let quote = quoted.unwrap();
        GuestEvidence {
            nonce,
            epoch: Epoch(1),
            ak_certificate: certificates.ak_certificate.clone(),
            ek_certificate: certificates.ek_certificate.clone(),
            quote: quote.attest.into(),
            signature: quote.signature.into(),
            observed: self.observed.clone(),
            overflowed: false,
            unobservable: None,
            guest_log: None,
            ima_log: None,
        }
    }
}

fn manufacture(tpm: &mut Tpm) -> Result<(Public, Public), TpmError> {
    let empty = AuthValue::empty();
    let ek = tpm.scoped(|tpm| {
        let ek =
            tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template::ek_p256(), &empty)?;
        Ok::<_, TpmError>(ek.public().clone())
    })?;
    let ak = tpm.scoped(|tpm| {
        let ak =
            tpm.create_primary(Hierarchy::Platform, Auth::none(), &template::ak_p256(), &empty)?;
        tpm.persist(Hierarchy::Platform, Auth::none(), &ak, handle::VTPM_AK)
    })?;
    Ok((ek, ak.public().clone()))
}
