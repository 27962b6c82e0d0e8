//! The keeper's own keys: made at the first start, kept in the sealed store.
//!
//! | key | what for | kept |
//! |---|---|---|
//! | root key, 32 octets | seals the store | a file of its own, or where `root_key` says |
//! | CA | certificates, CRLs, the certificates of the two below | sealed store, or a PKCS #11 token |
//! | message key | signs XKMS answers: it is handed to the reader | sealed store |
//! | checkpoint key | signs heads of the audit log | sealed store |
//! | escrow key (HPKE) | opens private keys in escrow | a file of its own, apart from the store |
//! | OCSP key | signs OCSP answers | memory: made anew at each start |

use std::{path::Path, sync::Arc, time::Duration};

use attest::envelope::SoftwareKey;
use model::{Secret, api::Bytes};
use pki::{Ca, CaSpec, KeyUses, OwnCa, Profile, Responder, UserCert, UserName, Validity};
use serve::{
    clock::SharedClock,
    config::{SecretSource, own_secret},
    fsfile,
    hpke::{self, HpkePrivate, HpkePublic, Sealed},
    keys::SigningKey,
    pem,
};
use store::{
    typed::{Records, Write},
    wait,
};
use time::OffsetDateTime;

use super::{
    centre::{self, Centre},
    issuer::{Issuer, Own},
    ledger::StoreLedger,
    library::Library,
    publish::Publisher,
    record::{self, EntryId, Escrowed, OwnKey},
    refusal::Fault,
    settings::{Manner, Settings},
};

const DAY: Duration = Duration::from_secs(86_400);
const CA_DAYS: u32 = 20 * 365;
const MESSAGE_DAYS: u32 = 397;
const OCSP_DAYS: u32 = 7;
/// Certificates are valid from a little before now, for verifiers with slow clocks.
pub(crate) const BACK: Duration = Duration::from_secs(120);
/// Info of the HPKE messages in escrow.
const ESCROW_INFO: &[u8] = b"vouchsafe:trust:escrow:v1";

/// The key that signs the service's messages, with its certificates (DER, its own first).
#[derive(Debug)]
pub struct MessageIdentity {
    /// Its certificate and the CA's.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Secret<Vec<u8>>,
}

/// Where keys go into escrow.
#[derive(Debug)]
pub(crate) struct Escrow {
    private: HpkePrivate,
    public: HpkePublic,
}

impl Escrow {
    /// Opens the escrow key, or makes it at the first start.
    ///
    /// # Errors
    /// [`Fault::Key`].
    pub(crate) fn open(source: Option<&SecretSource>, default: &Path) -> Result<Self, Fault> {
        let pair = own_secret(source, default, || {
            let (private, public) = hpke::generate().map_err(Fault::key)?;
            let pair = [public.0.as_slice(), private.secret().expose()].concat();
            Ok::<_, Fault>(Secret::new(pair))
        })?;
        let (public, private) = pair
            .expose()
            .split_at_checked(hpke::POINT_LEN)
            .ok_or_else(|| Fault::key(std::io::Error::other("the escrow key is too short")))?;
        Ok(Self {
            public: HpkePublic(public.to_vec()),
            private: HpkePrivate::from_secret(Secret::new(private.to_vec())),
        })
    }

    /// Seals a private key for the binding `id`.
    ///
    /// # Errors
    /// [`Fault::Key`].
    pub(crate) fn seal(&self, id: EntryId, key: &[u8], until: u64) -> Result<Escrowed, Fault> {
        let Sealed { enc, ciphertext } =
            hpke::seal(&self.public, ESCROW_INFO, &id.0, key).map_err(Fault::key)?;
        Ok(Escrowed { enc: Bytes(enc), ciphertext: Bytes(ciphertext), until, resident: false })
    }

    /// Opens the private key of the binding `id`.
    ///
    /// # Errors
    /// [`Fault::Key`] if it was altered or is another binding's.
    pub(crate) fn open_key(
        &self,
        id: EntryId,
        sealed: &Escrowed,
    ) -> Result<Secret<Vec<u8>>, Fault> {
        let sealed = Sealed { enc: sealed.enc.0.clone(), ciphertext: sealed.ciphertext.0.clone() };
        hpke::open(&self.private, &sealed, ESCROW_INFO, &id.0).map_err(Fault::key)
    }
}

/// The keys of one keeper.
#[derive(Debug)]
pub(crate) struct Keyring {
    /// Our own CA, or the line to the centre.
    pub(super) issuer: Issuer,
    /// The library, which the CA's ledger is in.
    pub(crate) library: Arc<Library>,
    /// Signs the service's messages.
    pub(crate) message: OwnKey,
}

impl Keyring {
    /// Opens the keys, and makes those that are not there yet; writes `ca.pem`.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn open(
        records: Records,
        settings: &Settings,
        dir: &Path,
        (clock, centre): (&SharedClock, Option<Arc<dyn Centre>>),
    ) -> Result<Self, Fault> {
        let (issuer, message, library) = match centre {
            None => full(&records, settings, clock.now())?,
            Some(centre) => {
                let message = own(&records, "message", bare)?;
                let (line, message) =
                    centre::open((&records, dir), settings, clock, centre, message)?;
                let library = Arc::new(Library::new(records.clone(), None));
                (Issuer::Centre(Arc::new(line)), message, library)
            }
        };
        let ca = dir.join("ca.pem");
        pem::write_certificates(&ca, &[issuer.certificate()]).map_err(Fault::key)?;
        Ok(Self { issuer, library, message })
    }
}

/// The key that signs heads of the store and of the audit log; its public half is `signing.pub`.
///
/// # Errors
/// [`Fault`].
pub(crate) fn checkpoint(records: &Records, dir: &Path) -> Result<Arc<SoftwareKey>, Fault> {
    let checkpoint = own(records, "checkpoint", bare)?;
    let checkpoint = SoftwareKey::from_pkcs8(&checkpoint.key.0).map_err(Fault::key)?;
    let text = pem::encode("PUBLIC KEY", checkpoint.spki()).map_err(Fault::key)?;
    fsfile::write_atomic(&dir.join("signing.pub"), text.as_bytes(), 0o644).map_err(Fault::key)?;
    Ok(Arc::new(checkpoint))
}

/// Our own CA, made at the first start, with its ledger in the library.
fn full(
    records: &Records,
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<(Issuer, OwnKey, Arc<Library>), Fault> {
    if settings.manner() != Manner::Full {
        return Err(Fault::ca(std::io::Error::other("this manner needs a centre")));
    }
    if centre::has_centre(records)? {
        let made = "this state was made with a centre: no CA is made in it";
        return Err(Fault::ca(std::io::Error::other(made)));
    }
    let ca = own_ca(records, settings, now)?;
    let message = message_key(records, &ca, now)?;
    let own = pki::CertFacts::read(ca.certificate()).map_err(Fault::ca)?;
    let library = Arc::new(Library::new(records.clone(), Some(&own.subject)));
    let ledger = StoreLedger::new(Arc::clone(&library));
    let publisher = Publisher::new(&ca, now)?;
    let chain = vec![ca.certificate().to_vec()];
    let ca = OwnCa::new(ca, chain, ledger.clone()).map_err(Fault::ca)?;
    Ok((Issuer::Own(Box::new(Own { ca, ledger, publisher })), message, library))
}

/// Our own CA: its key is in the store, or in the token that the settings name.
fn own_ca(records: &Records, settings: &Settings, now: OffsetDateTime) -> Result<Ca, Fault> {
    let token = settings.token.as_ref();
    let mut made = None;
    let key = own(records, "ca", || {
        let (common_name, validity) = (settings.ca_name.clone(), lasting(now, CA_DAYS));
        let spec = CaSpec { common_name, path_length: 0, validity };
        let (ca, key) = token::create_root(token, &spec).map_err(Fault::ca)?;
        let certificate = Bytes(ca.certificate().to_vec());
        made = Some(ca);
        Ok(OwnKey { certificate, key: Bytes(key.expose().clone()) })
    })?;
    match made {
        Some(ca) => Ok(ca),
        None => token::load(token, key.certificate.0, &Secret::new(key.key.0)).map_err(Fault::ca),
    }
}

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

/// The message key, with a new certificate if the one it has is past its half.
fn message_key(records: &Records, ca: &Ca, now: OffsetDateTime) -> Result<OwnKey, Fault> {
    let mut own_key = own(records, "message", bare)?;
    let half = time::Duration::days(i64::from(MESSAGE_DAYS / 2));
    let facts = pki::CertFacts::read(&own_key.certificate.0);
    if facts.is_ok_and(|facts| now.saturating_add(half) < facts.not_after) {
        return Ok(own_key);
    }
    let key = SigningKey::from_pkcs8(&Secret::new(own_key.key.0.clone())).map_err(Fault::key)?;
    let profile = Profile::User(UserCert {
        name: "vouchsafe-trust".to_owned(),
        names: vec![UserName::Uri("http://www.w3.org/2002/03/xkms#".to_owned())],
        uses: KeyUses { signature: true, ..KeyUses::default() },
        ..UserCert::default()
    });
    let issued = ca.issue(&profile, key.spki(), lasting(now, MESSAGE_DAYS)).map_err(Fault::ca)?;
    own_key.certificate = Bytes(issued.der);
    let place = record::own_key("message")?;
    let version = wait(records.get(&place))?.map_or(0, |known| known.version);
    let write = Write::new().put(place, &own_key, version)?;
    if wait(records.commit(write))? { Ok(own_key) } else { Err(Fault::Contended) }
}

/// A responder with a key of its own, certified for a week.
///
/// # Errors
/// [`Fault`].
pub(crate) fn responder(ca: &Ca, now: OffsetDateTime) -> Result<Responder, Fault> {
    let key = SigningKey::generate().map_err(Fault::key)?;
    let profile = Profile::OcspResponder { name: "vouchsafe-trust OCSP".to_owned() };
    let issued = ca.issue(&profile, key.spki(), lasting(now, OCSP_DAYS)).map_err(Fault::ca)?;
    let pkcs8 = key.to_pkcs8().map_err(Fault::key)?;
    Responder::load(&issued.der, &pkcs8, ca.certificate()).map_err(Fault::ca)
}

fn lasting(now: OffsetDateTime, days: u32) -> Validity {
    Validity::backdated(now, BACK, DAY.saturating_mul(days))
}
