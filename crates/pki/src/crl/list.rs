//! A CRL of any kind (RFC 5280, section 5): full or delta, direct or indirect, of all or of some
//! certificates and reasons. Read here; believed only by [`crate::revocation`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest;
use der::{Decode, Encode as _, asn1::ObjectIdentifier as Oid, oid::AssociatedOid};
use time::OffsetDateTime;
use x509_cert::{
    Version,
    certificate::Rfc5280,
    crl::{CertificateList, RevokedCert},
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BaseCrlNumber, CrlNumber, CrlReason, FreshestCrl,
            IssuingDistributionPoint,
            crl::dp::{DistributionPoint, Reasons},
            name::{DistributionPointName, GeneralName},
        },
    },
    spki::AlgorithmIdentifierOwned,
};

use super::{CrlRejection, MAX_CRL, RevocationReason};
use crate::{
    cert::{self, Cert},
    dn::Dn,
};

/// The library's own constant is another extension's.
pub(super) const ISSUING_POINT: Oid = Oid::new_unwrap("2.5.29.28");
pub(super) const CERTIFICATE_ISSUER: Oid = Oid::new_unwrap("2.5.29.29");

/// The nine reasons of ReasonFlags but the first, which is unused.
pub(crate) const ALL_REASONS: u16 = 0x1fe;

/// A CRL's number, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) Vec<u8>);

impl Number {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().skip_while(|byte| *byte == 0).collect())
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Which certificates and reasons a CRL speaks about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Its distribution point's names, comparable; `None`: it names none.
    pub(crate) points: Option<Vec<Vec<u8>>>,
    pub(crate) users_only: bool,
    pub(crate) cas_only: bool,
    pub(crate) attributes_only: bool,
    pub(crate) indirect: bool,
    pub(crate) reasons: u16,
    /// The extension's bytes: what makes two scopes the same.
    pub(crate) der: Vec<u8>,
}

/// A certificate on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: OffsetDateTime,
    pub(crate) reason: Option<RevocationReason>,
}

/// A CRL that was read.
#[derive(Debug)]
pub(crate) struct List {
    tbs: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    signature: Vec<u8>,
    issuer: Dn,
    pub(crate) issuer_key: Vec<u8>,
    pub(crate) this_update: OffsetDateTime,
    pub(crate) next_update: Option<OffsetDateTime>,
    pub(crate) number: Option<Number>,
    /// The number of the full CRL that a delta is based on.
    pub(crate) base: Option<Number>,
    pub(crate) scope: Scope,
    pub(crate) authority_key: Option<Vec<u8>>,
    /// A critical extension, of the list or of an entry, that is not known.
    pub(crate) unknown_critical: bool,
    /// By issuer of the certificate, then by serial number.
    entries: HashMap<Arc<[u8]>, HashMap<Vec<u8>, Entry>>,
    /// The key that is known to have signed it.
    proven: Mutex<Option<Vec<u8>>>,
}

impl List {
    /// Reads one DER CRL of version 2 and nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CrlRejection> {
        if der.len() > MAX_CRL {
            return Err(CrlRejection::TooLarge);
        }
        let list =
            CertificateList::<Rfc5280>::from_der(der).map_err(|_| CrlRejection::Malformed)?;
        Self::read(der, &list).map_err(|_| CrlRejection::Malformed)
    }

    fn read(der: &[u8], list: &CertificateList) -> der::Result<Self> {
        let body = &list.tbs_cert_list;
        let bad = || der::Error::from(der::ErrorKind::Failed);
        if body.version != Version::V2 || body.signature != list.signature_algorithm {
            return Err(bad());
        }
        let issuer = Dn::new(&body.issuer)?;
        let mut read = Self {
            tbs: cert::signed_part(der)?,
            algorithm: list.signature_algorithm.clone(),
            signature: list.signature.as_bytes().ok_or_else(bad)?.to_vec(),
            issuer_key: issuer.key(),
            issuer,
            this_update: cert::date(body.this_update)?,
            next_update: body.next_update.map(cert::date).transpose()?,
            number: None,
            base: None,
            scope: Scope { reasons: ALL_REASONS, ..Scope::default() },
            authority_key: None,
            unknown_critical: false,
            entries: HashMap::new(),
            proven: Mutex::new(None),
        };
        let mut seen = Vec::new();
        for extension in body.crl_extensions.iter().flatten() {
            if seen.contains(&extension.extn_id) {
                return Err(bad());
            }
            seen.push(extension.extn_id);
            read.take(extension)?;
        }
        read.take_entries(body.revoked_certificates.as_deref().unwrap_or_default())?;
        Ok(read)
    }

    fn take(&mut self, extension: &Extension) -> der::Result<()> {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            CrlNumber::OID => {
                self.number = Some(Number::new(CrlNumber::from_der(value)?.0.as_bytes()));
            }
            BaseCrlNumber::OID => {
                self.base = Some(Number::new(BaseCrlNumber::from_der(value)?.0.as_bytes()));
            }
            ISSUING_POINT => self.scope = scope(value, &self.issuer)?,
            AuthorityKeyIdentifier::OID => {
                let identifier = AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                self.authority_key = identifier.map(|bytes| bytes.as_bytes().to_vec());
            }
            // Says where deltas are; they come in by themselves.
            FreshestCrl::OID => {}
            _ => self.unknown_critical |= extension.critical,
        }
        Ok(())
    }

    fn take_entries(&mut self, entries: &[RevokedCert]) -> der::Result<()> {
        // Each entry without a certificate issuer is of the same one as that before it.
        let mut of: Arc<[u8]> = self.issuer_key.clone().into();
        for entry in entries {
            let mut reason = None;
            for extension in entry.crl_entry_extensions.iter().flatten() {
                let value = extension.extn_value.as_bytes();
                match extension.extn_id {
                    CrlReason::OID => reason = Some(CrlReason::from_der(value)?.into()),
                    CERTIFICATE_ISSUER => of = directory_name(value)?.into(),
                    _ => self.unknown_critical |= extension.critical,
                }
            }
            let serial = entry.serial_number.to_der()?;
            let entry = Entry { at: cert::date(entry.revocation_date)?, reason };
            self.entries.entry(of.clone()).or_default().insert(serial, entry);
        }
        Ok(())
    }

    /// What the list says about `cert`.
    pub(crate) fn entry(&self, cert: &Cert) -> Option<Entry> {
        self.entries.get(cert.issuer_key())?.get(cert.serial_der()).copied()
    }

    /// Whether the list names this serial number (as in a certificate) of its own issuer.
    pub(crate) fn names(&self, serial: &[u8]) -> bool {
        // What an INTEGER has more than the bytes of a positive number.
        let Ok(integer) = x509_cert::serial_number::SerialNumber::<Rfc5280>::new(serial) else {
            return false;
        };
        let Ok(serial) = integer.to_der() else { return false };
        self.entries.get(self.issuer_key.as_slice()).is_some_and(|own| own.contains_key(&serial))
    }

    /// The serial numbers (as in certificates) of its own issuer that it names.
    pub(crate) fn own_serials(&self) -> impl Iterator<Item = Vec<u8>> {
        let own = self.entries.get(self.issuer_key.as_slice());
        own.into_iter().flat_map(HashMap::keys).filter_map(|der| {
            let serial = x509_cert::serial_number::SerialNumber::<Rfc5280>::from_der(der).ok()?;
            Some(serial.as_bytes().to_vec())
        })
    }

    /// Verifies its signature with the key of `signer`; the answer is kept.
    pub(crate) fn signed_by(&self, signer: &Cert) -> bool {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.as_deref() == Some(signer.spki()) {
            return true;
        }
        let good = signer.verify(&self.algorithm, &self.tbs, &self.signature).is_ok();
        if good {
            *proven = Some(signer.spki().to_vec());
        }
        good
    }

    /// What tells the series of CRLs of which this is one: its issuer, the key's identifier, its
    /// scope, and whether it is a delta.
    pub(crate) fn series(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let key = self.authority_key.as_deref().unwrap_or_default();
        for part in [&self.issuer_key, key, &self.scope.der] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        context.update(&[u8::from(self.base.is_some())]);
        let mut series = [0; 32];
        for (to, from) in series.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        series
    }
}

fn directory_name(value: &[u8]) -> der::Result<Vec<u8>> {
    let names = Vec::<GeneralName>::from_der(value)?;
    let name = names.iter().find_map(|name| {
        if let GeneralName::DirectoryName(name) = name { Some(name) } else { None }
    });
    Ok(Dn::new(name.ok_or(der::ErrorKind::Failed)?)?.key())
}

fn scope(value: &[u8], issuer: &Dn) -> der::Result<Scope> {
    let point = IssuingDistributionPoint::from_der(value)?;
    Ok(Scope {
        points: point
            .distribution_point
            .as_ref()
            .map(|name| point_names(name, issuer))
            .transpose()?,
        users_only: point.only_contains_user_certs,
        cas_only: point.only_contains_ca_certs,
        attributes_only: point.only_contains_attribute_certs,
        indirect: point.indirect_crl,
        reasons: point
            .only_some_reasons
            .map_or(ALL_REASONS, |reasons| reasons.bits() & ALL_REASONS),
        der: value.to_vec(),
    })
}

/// The names of a distribution point in a form in which they can be compared.
pub(crate) fn point_names(name: &DistributionPointName, issuer: &Dn) -> der::Result<Vec<Vec<u8>>> {
    match name {
        DistributionPointName::FullName(names) => names.iter().map(name_key).collect(),
        DistributionPointName::NameRelativeToCRLIssuer(relative) => {
            Ok(vec![tagged(&issuer.join(relative)?)])
        }
    }
}

fn tagged(name: &Dn) -> Vec<u8> {
    [b"dn".as_slice(), &name.key()].concat()
}

/// A name in a form in which it can be compared.
fn name_key(name: &GeneralName) -> der::Result<Vec<u8>> {
    if let GeneralName::DirectoryName(name) = name {
        Ok(tagged(&Dn::new(name)?))
    } else {
        name.to_der()
    }
}

/// The reasons of a distribution point in a certificate.
pub(crate) fn point_reasons(point: &DistributionPoint) -> u16 {
    point.reasons.map_or(ALL_REASONS, |reasons| reasons.bits() & ALL_REASONS)
}

impl From<CrlReason> for RevocationReason {
    fn from(reason: CrlReason) -> Self {
        match reason {
            CrlReason::Unspecified => Self::Unspecified,
            CrlReason::KeyCompromise => Self::KeyCompromise,
            CrlReason::CaCompromise => Self::CaCompromise,
            CrlReason::AffiliationChanged => Self::AffiliationChanged,
            CrlReason::Superseded => Self::Superseded,
            CrlReason::CessationOfOperation => Self::CessationOfOperation,
            CrlReason::CertificateHold => Self::CertificateHold,
            CrlReason::RemoveFromCRL => Self::RemoveFromCrl,
            CrlReason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
            CrlReason::AaCompromise => Self::AaCompromise,
        }
    }
}

impl RevocationReason {
    pub(crate) const fn code(self) -> CrlReason {
        match self {
            Self::Unspecified => CrlReason::Unspecified,
            Self::KeyCompromise => CrlReason::KeyCompromise,
            Self::CaCompromise => CrlReason::CaCompromise,
            Self::AffiliationChanged => CrlReason::AffiliationChanged,
            Self::Superseded => CrlReason::Superseded,
            Self::CessationOfOperation => CrlReason::CessationOfOperation,
            Self::CertificateHold => CrlReason::CertificateHold,
            Self::RemoveFromCrl => CrlReason::RemoveFromCRL,
            Self::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
            Self::AaCompromise => CrlReason::AaCompromise,
        }
    }

    /// Its bit in ReasonFlags; none for "unspecified" and for what is no reason to revoke.
    pub(crate) const fn flag(self) -> Option<Reasons> {
        match self {
            Self::Unspecified | Self::RemoveFromCrl => None,
            Self::KeyCompromise => Some(Reasons::KeyCompromise),
            Self::CaCompromise => Some(Reasons::CaCompromise),
            Self::AffiliationChanged => Some(Reasons::AffiliationChanged),
            Self::Superseded => Some(Reasons::Superseded),
            Self::CessationOfOperation => Some(Reasons::CessationOfOperation),
            Self::CertificateHold => Some(Reasons::CertificateHold),
            Self::PrivilegeWithdrawn => Some(Reasons::PrivilegeWithdrawn),
            Self::AaCompromise => Some(Reasons::AaCompromise),
        }
    }
}
