//! The authority's keys: made once by `init`, opened at each start.
//!
//! | key | what for |
//! |---|---|
//! | root CA | host AKs (privacy CA), sessions, operators, the server's own certificate |
//! | vTPM CA, below it | virtual TPMs |
//! | signing key | verdicts, grants, checkpoints, heads |
//! | deposit key (HPKE) | master keys that hosts generated |
//!
//! The server's TLS key is made anew at each start and never stored.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use attest::envelope::{KeyUnusable, SoftwareKey, TrustedKeys};
use model::{HostId, Secret, VmId};
use pki::{Anchors, Ca, CaSpec, CertRejection, IssueError, Profile, Validity};
use serve::{
    clock::SharedClock,
    fsfile,
    hpke::{self, HpkeError, HpkePrivate, HpkePublic},
    keys::{KeyError, SigningKey},
    pem::{self, PemError},
};
use store::{KeyId, SealKeys};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    paths::Paths,
    root::{RootError, RootKey},
    vmkey::{self, KEY},
};

const DAY: Duration = Duration::from_secs(86_400);
/// Lifetimes: a CA, what is bound to a TPM, an operator, a server process.
const CA_DAYS: u32 = 20 * 365;
const DEVICE_DAYS: u32 = 5 * 365;
const OPERATOR_DAYS: u32 = 365;
const SERVER_DAYS: u32 = 397;
/// Certificates are valid from a little before now, for verifiers with slow clocks.
pub(crate) const BACK: Duration = Duration::from_secs(120);

/// Keys could not be made or opened.
#[derive(Debug, Error)]
pub(crate) enum KeyringError {
    /// Files.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// HPKE.
    #[error(transparent)]
    Hpke(#[from] HpkeError),
    /// Issuing.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The stored signing key or deposit key is not one.
    #[error("a stored key cannot be used")]
    Stored,
    /// PEM files.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The CA certificate cannot be an anchor.
    #[error("the CA's certificate cannot be used")]
    Anchor(#[from] CertRejection),
    /// The root key.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl From<KeyUnusable> for KeyringError {
    fn from(_: KeyUnusable) -> Self {
        Self::Stored
    }
}

/// The keys in use.
#[derive(Debug)]
pub(crate) struct Keyring {
    /// The root CA.
    pub(crate) ca: Ca,
    /// Anchors with only the root CA.
    pub(crate) anchors: Anchors,
    /// The CA of virtual TPMs.
    pub(crate) vtpm_ca: Ca,
    /// Anchors with only that CA.
    pub(crate) vtpm_anchors: Anchors,
    /// Signs verdicts, grants, checkpoints and heads.
    pub(crate) signer: Arc<SoftwareKey>,
    /// Verifies what `signer` signed.
    pub(crate) own: TrustedKeys,
    /// Opens deposits.
    pub(crate) deposit: HpkePrivate,
    /// What deposits are sealed to.
    pub(crate) deposit_public: HpkePublic,
    /// Wraps master keys.
    pub(crate) vmk_wrap: Secret<[u8; KEY]>,
    host_ref: Secret<[u8; KEY]>,
}

/// The server's certificate and key.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    /// Leaf first, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub(crate) key: Secret<Vec<u8>>,
}

/// Makes what is not there yet. Repeatable; nothing that is there is replaced.
///
/// # Errors
/// [`KeyringError`].
pub(crate) fn make(paths: &Paths, root: &RootKey, clock: &SharedClock) -> Result<(), KeyringError> {
    let now = clock.now();
    if !paths.ca().exists() {
        let spec = ca_spec("Vouchsafe authority", 1, now);
        let (ca, key) = Ca::create_root(&spec)?;
        root.write_file(&paths.ca_key(), &key)?;
        pem::write_certificates(&paths.ca(), &[ca.certificate()])?;
    }
    let ca = load_ca(root, &paths.ca(), &paths.ca_key())?;
    if !paths.vtpm_ca().exists() {
        let mut spec = ca_spec("Vouchsafe virtual TPMs", 0, now);
        spec.validity.not_after = ca.validity().not_after;
        let (vtpm_ca, key) = ca.create_sub(&spec)?;
        root.write_file(&paths.vtpm_ca_key(), &key)?;
        pem::write_certificates(&paths.vtpm_ca(), &[vtpm_ca.certificate()])?;
    }
    if !paths.signing_public().exists() {
        let key = SigningKey::generate()?;
        root.write_file(&paths.signing_key(), &key.to_pkcs8()?)?;
        let text = pem::encode("PUBLIC KEY", key.spki())?;
        fsfile::write_atomic(&paths.signing_public(), text.as_bytes(), 0o644)?;
    }
    if !paths.deposit_key().exists() {
        let (private, public) = hpke::generate()?;
        let pair = [private.secret().expose().as_slice(), &public.0].concat();
        root.write_file(&paths.deposit_key(), &Secret::new(pair))?;
    }
    if !paths.operator().exists() {
        issue_operator(&ca, "admin", &paths.operator(), &paths.operator_key(), now)?;
    }
    Ok(())
}

/// Issues an operator's client certificate; the key file is written first.
///
/// # Errors
/// [`KeyringError`].
pub(crate) fn issue_operator(
    ca: &Ca,
    name: &str,
    certificate: &Path,
    key_file: &Path,
    now: OffsetDateTime,
) -> Result<(), KeyringError> {
    let key = SigningKey::generate()?;
    let profile = Profile::Client { operator: name.to_owned() };
    let issued = ca.issue(&profile, key.spki(), lasting(now, OPERATOR_DAYS))?;
    pem::write_key(key_file, &key.to_pkcs8()?)?;
    pem::write_certificates(certificate, &[&issued.der])?;
    Ok(())
}

/// What seals the store's records.
///
/// # Errors
/// [`KeyringError::Root`].
pub(crate) fn seal_keys(root: &RootKey) -> Result<SealKeys, KeyringError> {
    Ok(SealKeys::new(KeyId(1), root.derive("store")?))
}

impl Keyring {
    /// Opens the keys that [`make`] made.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub(crate) fn open(paths: &Paths, root: &RootKey) -> Result<Self, KeyringError> {
        let ca = load_ca(root, &paths.ca(), &paths.ca_key())?;
        let vtpm_ca = load_ca(root, &paths.vtpm_ca(), &paths.vtpm_ca_key())?;
        let signing = root.read_file(&paths.signing_key())?;
        let signer = SoftwareKey::from_pkcs8(signing.expose())?;
        let pair = root.read_file(&paths.deposit_key())?;
        let split = pair.expose().len().checked_sub(hpke::POINT_LEN).ok_or(KeyringError::Stored)?;
        let (private, public) =
            pair.expose().split_at_checked(split).ok_or(KeyringError::Stored)?;
        Ok(Self {
            anchors: Anchors::new(&[ca.certificate()])?,
            vtpm_anchors: Anchors::new(&[vtpm_ca.certificate()])?,
            own: TrustedKeys::new([signer.spki()])?,
            ca,
            vtpm_ca,
            signer: Arc::new(signer),
            deposit: HpkePrivate::from_secret(Secret::new(private.to_vec())),
            deposit_public: HpkePublic(public.to_vec()),
            vmk_wrap: root.derive("vmk-wrap")?,
            host_ref: root.derive("host-ref")?,
        })
    }

    /// A new server key with its certificate chain, for this process.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub(crate) fn server(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<ServerIdentity, KeyringError> {
        let key = SigningKey::generate()?;
        let (mut dns, mut ip) = (Vec::new(), Vec::new());
        for name in names {
            match name.parse::<IpAddr>() {
                Ok(address) => ip.push(address),
                Err(_) => dns.push(name.clone()),
            }
        }
        let profile = Profile::TlsServer { name: "vouchsafe-authority".to_owned(), dns, ip };
        let issued = self.ca.issue(&profile, key.spki(), lasting(now, SERVER_DAYS))?;
        Ok(ServerIdentity { chain: vec![issued.der], key: key.to_pkcs8()? })
    }

    /// A certificate for a key that lives in a TPM.
    ///
    /// # Errors
    /// [`KeyringError::Issue`].
    pub(crate) fn device(
        ca: &Ca,
        profile: &Profile,
        spki: &[u8],
        now: OffsetDateTime,
    ) -> Result<Vec<u8>, KeyringError> {
        Ok(ca.issue(profile, spki, lasting(now, DEVICE_DAYS))?.der)
    }

    /// A host's session certificate until `until` (Unix milliseconds).
    ///
    /// # Errors
    /// [`KeyringError::Issue`].
    pub(crate) fn session(
        &self,
        profile: &Profile,
        spki: &[u8],
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, KeyringError> {
        Ok(self.ca.issue(profile, spki, Validity::backdated(now, BACK, lifetime))?.der)
    }

    /// The reference by which a VM's certificates name its host: another one for each VM, so that
    /// nobody else can tell which VMs share a host.
    ///
    /// # Errors
    /// [`KeyringError::Root`].
    pub(crate) fn host_ref(&self, host: &HostId, vm: &VmId) -> Result<[u8; 16], KeyringError> {
        let info = [host.as_str().as_bytes(), b"\0", vm.as_str().as_bytes()];
        let key = vmkey::hkdf(b"vouchsafe:host-ref:v1", &self.host_ref, &info);
        let key = key.map_err(RootError::Derive)?;
        let mut reference = [0; 16];
        for (to, from) in reference.iter_mut().zip(key.expose()) {
            *to = *from;
        }
        Ok(reference)
    }
}

/// The root CA, for issuing outside the server.
///
/// # Errors
/// [`KeyringError`].
pub(crate) fn load_ca(root: &RootKey, certificate: &Path, key: &Path) -> Result<Ca, KeyringError> {
    let der = pem::read_certificates(certificate)?;
    let der = der.into_iter().next().ok_or(KeyringError::Stored)?;
    Ok(Ca::load(der, &root.read_file(key)?)?)
}

fn ca_spec(name: &str, path_length: u8, now: OffsetDateTime) -> CaSpec {
    CaSpec { common_name: name.to_owned(), path_length, validity: lasting(now, CA_DAYS) }
}

fn lasting(now: OffsetDateTime, days: u32) -> Validity {
    Validity::backdated(now, BACK, DAY.saturating_mul(days))
}
