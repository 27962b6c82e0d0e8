//! The host's work on a vTPM that no guest uses: making its keys, installing its certificates. All
//! over the data channel; the guest's firmware comes later and takes the platform hierarchy over.

use model::{PcrBanks, Secret, child::vtpm::Identity};
use tpm::{
    Auth, AuthValue, Hierarchy, NvAttributes, NvPublic, Object, Tpm, TpmError, handle, template,
};

use crate::{agent::RequestError, keys::Keys};

/// The longest certificate that is installed.
const MAX_CERTIFICATE: usize = 2048;

/// Allocates the banks, makes what is missing of EK and host AK, and tells all.
///
/// The banks are there for the guest's first boot: QEMU's coming ends the host's own work, and its
/// INIT is the power cycle at which TPM2_PCR_Allocate takes effect.
pub(crate) fn make(
    tpm: &mut Tpm,
    keys: &Keys,
    rsa: bool,
    banks: &PcrBanks,
) -> Result<Identity, RequestError> {
    if tpm.pcr_banks()? != banks.as_slice() {
        tpm.pcr_allocate(Auth::none(), banks.as_slice())?;
    }
    let ak = match tpm.persistent(handle::VTPM_AK)? {
        Some(ak) => ak,
        None => make_ak(tpm, &keys.auth_value)?,
    };
    let ek = match tpm.persistent(handle::EK)? {
        Some(ek) => ek,
        None => {
            let ek = primary(tpm, &template::ek_p256())?;
            tpm.persist(Hierarchy::Owner, Auth::none(), &ek, handle::EK)?
        }
    };
    let ek_rsa = match rsa {
        true => primary(tpm, &template::ek_rsa2048())?.public().as_bytes().to_vec(),
        false => Vec::new(),
    };
    Ok(Identity {
        ek_p256: ek.public().as_bytes().to_vec(),
        ek_rsa,
        ak: ak.public().as_bytes().to_vec(),
    })
}

fn primary(tpm: &mut Tpm, kind: &template::Template) -> Result<Object, TpmError> {
    tpm.create_primary(Hierarchy::Endorsement, Auth::none(), kind, &AuthValue::empty())
}

/// The host's AK: in the platform hierarchy, so that no change of owner reaches it; with an
/// authValue that the guest does not have; and derived from bytes that are forgotten at once, so
/// that firmware with platform authorization cannot derive it again with an authValue of its own.
fn make_ak(tpm: &mut Tpm, auth_value: &AuthValue) -> Result<Object, RequestError> {
    // From the vTPM, which makes the key too; seeding a generator of our own takes 60 ms.
    let unique = Secret::new(tpm.random(64)?);
    let bytes = unique.expose().first_chunk().ok_or(RequestError::Bad("no random bytes"))?;
    let kind = template::ak_p256_unique(bytes);
    let ak = tpm.create_primary(Hierarchy::Platform, Auth::none(), &kind, auth_value)?;
    Ok(tpm.persist(Hierarchy::Platform, Auth::none(), &ak, handle::VTPM_AK)?)
}

/// Writes and locks one EK certificate. The same one again is no error; another one is.
pub(crate) fn install(tpm: &mut Tpm, index: u32, der: &[u8]) -> Result<(), RequestError> {
    if der.is_empty() {
        return Ok(());
    }
    if der.len() > MAX_CERTIFICATE {
        return Err(RequestError::Bad("a certificate is too long"));
    }
    let size = u16::try_from(der.len()).map_err(|_| RequestError::Bad("a length"))?;
    if let Some(present) = tpm.nv_public(index)? {
        let locked = present.attributes.contains(NvAttributes(0x0800));
        if locked && present.attributes.contains(NvAttributes::WRITTEN) {
            let installed = tpm.nv_read(None, &mut Auth::none(), index)?;
            return match installed.as_slice() == der {
                true => Ok(()),
                false => Err(RequestError::Bad("another certificate is installed")),
            };
        }
        // Left by an installation that was cut short.
        tpm.nv_undefine(Hierarchy::Platform, Auth::none(), index)?;
    }
    let attributes = NvAttributes::EK_CERTIFICATE;
    let public = NvPublic { index, attributes, policy: Vec::new(), size };
    tpm.nv_define(Hierarchy::Platform, Auth::none(), &public, &AuthValue::empty())?;
    tpm.nv_write(Some(Hierarchy::Platform), &mut Auth::none(), index, der)?;
    tpm.nv_write_lock(Some(Hierarchy::Platform), Auth::none(), index)?;
    Ok(())
}
