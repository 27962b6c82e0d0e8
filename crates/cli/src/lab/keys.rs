//! The lab's own keys: the EK CA of its "TPM manufacturer", and the endorser of reference values.

use std::{path::Path, time::Duration};

use attest::envelope::{Sign, SoftwareKey};
use model::HostId;
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use serve::{
    clock::{Clock as _, SystemClock},
    pem,
};
use tpm::Public;

use super::layout::Layout;
use crate::{output::Failure, reference};

/// The EK CA and its certificates last as long as a lab may.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// TCG vendor identifier of IBM, whose software TPM swtpm is: `IBM ` in ASCII.
const SOFTWARE_TPM: &str = "id:49424D00";

/// Both keys.
#[derive(Debug)]
pub struct LabKeys {
    ek_ca: Ca,
    endorser: SoftwareKey,
}

impl LabKeys {
    /// The keys in the lab's `keys` directory, made if they are missing.
    ///
    /// # Errors
    /// [`Failure`] if they cannot be read or made.
    pub fn open_or_make(layout: &Layout) -> Result<Self, Failure> {
        let dir = layout.keys();
        Ok(Self { ek_ca: ek_ca(&dir)?, endorser: endorser(&dir)? })
    }

    /// Who signs reference values.
    pub fn endorser(&self) -> &dyn Sign {
        &self.endorser
    }

    /// An EK certificate, as a manufacturer would put it into a TPM.
    ///
    /// # Errors
    /// [`Failure`] if the CA cannot issue it.
    pub fn certify_ek(&self, host: &HostId, ek: &Public) -> Result<Vec<u8>, Failure> {
        let tpm = TpmModel {
            manufacturer: SOFTWARE_TPM.to_owned(),
            model: format!("swtpm of lab host {host}"),
            version: "id:00020000".to_owned(),
        };
        let profile = Profile::HostEk { tpm };
        let validity = self.ek_ca.validity();
        Ok(self.ek_ca.issue(&profile, &ek.spki_der()?, validity)?.der)
    }
}

fn ek_ca(dir: &Path) -> Result<Ca, Failure> {
    let (certificate, key) = (dir.join("ek-ca.pem"), dir.join("ek-ca.key"));
    if certificate.exists() {
        let chain = pem::read_certificates(&certificate)?;
        let der = chain.into_iter().next().unwrap_or_default();
        return Ok(Ca::load(der, &pem::read_key(&key)?)?);
    }
    let spec = CaSpec {
        common_name: "Vouchsafe lab EK CA".to_owned(),
        path_length: 0,
        validity: Validity::new(SystemClock.now(), LIFETIME),
    };
    let (ca, pkcs8) = Ca::create_root(&spec)?;
    pem::write_key(&key, &pkcs8)?;
    pem::write_certificates(&certificate, &[ca.certificate()])?;
    Ok(ca)
}

fn endorser(dir: &Path) -> Result<SoftwareKey, Failure> {
    let (file, public) = (dir.join("endorser.key"), dir.join("endorser.pub"));
    if !file.exists() {
        return reference::make_key(&file, &public);
    }
    let key = reference::open_key(&file)?;
    // A lab that was stopped between the two is finished.
    if !public.exists() {
        reference::write_public(&key, &public)?;
    }
    Ok(key)
}
