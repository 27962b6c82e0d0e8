//! The centre's own keys: made at the first start, kept in the sealed store; the root key that
//! seals it in a file of its own, or where the configuration says.

use std::{path::Path, sync::Arc, time::Duration};

use attest::envelope::SoftwareKey;
use model::{Domain, Secret, api::Bytes};
use pki::{Ca, CaSpec, Validity};
use serve::{fsfile, keys::SigningKey, pem};
use store::{typed::Records, wait};
use time::OffsetDateTime;

use super::{
    record::{self, OwnKey},
    refusal::Fault,
    settings::OwnSettings,
};

/// Certificates are valid from a little before now, for verifiers with slow clocks.
pub(crate) const BACK: Duration = Duration::from_secs(120);
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);

/// A key that is in the store, or is made and put there.
fn own(
    records: &Records,
    name: &str,
    make: impl FnOnce() -> Result<OwnKey, Fault>,
) -> Result<OwnKey, Fault> {
    wait(records.or_made(record::own_key(name)?, make))?.ok_or(Fault::Contended)
}

/// A new key without a certificate.
fn bare() -> Result<OwnKey, Fault> {
    let key = SigningKey::generate().and_then(|key| key.to_pkcs8()).map_err(Fault::key)?;
    Ok(OwnKey { certificate: Bytes::default(), key: Bytes(key.expose().clone()) })
}

/// The key that signs heads of the store and of the audit log; its public half is `signing.pub`.
///
/// # Errors
/// [`Fault`].
pub(crate) fn checkpoint(records: &Records, dir: &Path) -> Result<Arc<SoftwareKey>, Fault> {
    let key = own(records, "checkpoint", bare)?;
    let key = SoftwareKey::from_pkcs8(&key.key.0).map_err(Fault::key)?;
    let text = pem::encode("PUBLIC KEY", key.spki()).map_err(Fault::key)?;
    fsfile::write_atomic(&dir.join("signing.pub"), text.as_bytes(), 0o644)?;
    Ok(Arc::new(key))
}

/// The centre's own CA in a PKI; its certificate is `ca-<domain>.pem`. Its key is in the store, or in
/// the token that the settings name.
///
/// # Errors
/// [`Fault`].
pub(crate) fn ca(
    records: &Records,
    domain: &Domain,
    settings: &OwnSettings,
    (dir, now): (&Path, OffsetDateTime),
) -> Result<Ca, Fault> {
    let token = settings.token.as_ref();
    let mut made = None;
    let key = own(records, &format!("ca/{domain}"), || {
        let validity = Validity::backdated(now, BACK, CA_LIFE);
        let spec = CaSpec { common_name: settings.ca_name.clone(), path_length: 0, validity };
        let (ca, key) = token::create_root(token, &spec).map_err(Fault::key)?;
        let certificate = Bytes(ca.certificate().to_vec());
        made = Some(ca);
        Ok(OwnKey { certificate, key: Bytes(key.expose().clone()) })
    })?;
    let ca = match made {
        Some(ca) => ca,
        None => {
            token::load(token, key.certificate.0, &Secret::new(key.key.0)).map_err(Fault::key)?
        }
    };
    let file = dir.join(format!("ca-{domain}.pem"));
    pem::write_certificates(&file, &[ca.certificate()]).map_err(Fault::key)?;
    Ok(ca)
}

/// The key of an account at a PKI, PKCS #8.
///
/// # Errors
/// [`Fault`].
pub(crate) fn account(records: &Records, domain: &Domain) -> Result<Secret<Vec<u8>>, Fault> {
    let key = own(records, &format!("account/{domain}"), bare)?;
    Ok(Secret::new(key.key.0))
}
