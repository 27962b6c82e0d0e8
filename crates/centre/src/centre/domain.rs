//! The PKIs: their providers, anchors, and what an order asks of them.

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use model::{
    Domain,
    api::Bytes,
    centre::{CentreOrder, CentreWork, DomainInfo},
    keys::order::Prototype,
};
use pki::{
    Acme, AcmeConfig, Anchors, Ask, CertFacts, Cmp, CmpConfig, CmpCredential, Enrolment, OwnCa,
    Patience, Profile, Provider, Renewal, RevocationAsk, Validity, names,
};
use serve::{
    client::Exchange,
    clock::SharedClock,
    https::{Limits, Server},
    pem,
    shutdown::Shutdown,
};
use store::typed::Records;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::{
    keys::{self, BACK},
    ledger::{Asks, reason},
    refusal::{Fault, Refusal, Why},
    settings::{AcmeSettings, CmpSettings, DomainSettings, ProviderSettings},
    wire::{Challenges, Wire},
};

/// Longest time to a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest secret.
const MAX_SECRET: usize = 4096;

/// Everything that a PKI is opened from.
#[derive(Clone, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) records: Records,
    pub(crate) dir: &'a Path,
    pub(crate) clock: SharedClock,
    pub(crate) runtime: Handle,
    pub(crate) stop: Shutdown,
}

/// How certificates come from it.
#[derive(Debug)]
pub(crate) enum Pki {
    Own(Box<OwnCa<Asks>>),
    Cmp(Box<Cmp<Wire, Asks>>),
    Acme(Box<Acme<Wire, Asks, Challenges>>),
}

/// A PKI.
#[derive(Debug)]
pub(crate) struct PkiDomain {
    pub(crate) settings: DomainSettings,
    pub(crate) pki: Pki,
    pub(crate) asks: Asks,
    /// Reaches what is fetched from it.
    pub(crate) wire: Wire,
    /// Its anchors, DER.
    pub(crate) anchors: Vec<Vec<u8>>,
    /// The same, to validate with.
    pub(crate) trusted: Anchors,
    /// Its CAs and cross-certificates, DER.
    pub(crate) intermediates: Vec<Vec<u8>>,
    pub(crate) cross: Vec<Vec<u8>>,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl PkiDomain {
    /// Opens it; makes its CA or account at the first start.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn open(settings: DomainSettings, ground: &Ground<'_>) -> Result<Self, Fault> {
        let fault = Fault::pki(&settings.name);
        let asks = Asks::new(ground.records.clone(), settings.name.clone());
        let mut anchors = certificates(&settings.anchors).map_err(&fault)?;
        let intermediates = certificates(&settings.intermediates).map_err(&fault)?;
        let cross = certificates(&settings.cross).map_err(&fault)?;
        let tls = match &settings.provider {
            ProviderSettings::Own(_) => Vec::new(),
            ProviderSettings::Cmp(cmp) => certificates(&cmp.tls_anchors).map_err(&fault)?,
            ProviderSettings::Acme(acme) => certificates(&acme.tls_anchors).map_err(&fault)?,
        };
        let exchange = Exchange::new(&tls, ground.clock.clone(), CONNECT);
        let exchange = exchange.map_err(|error| fault(Box::new(error)))?;
        let wire = Wire::new(exchange, ground.runtime.clone());
        let pki = match &settings.provider {
            ProviderSettings::Own(own) => {
                let at = (ground.dir, ground.clock.now());
                let ca = keys::ca(&ground.records, &settings.name, own, at)?;
                anchors.insert(0, ca.certificate().to_vec());
                let own = OwnCa::new(ca, Vec::new(), asks.clone());
                Pki::Own(Box::new(own.map_err(|error| fault(Box::new(error)))?))
            }
            ProviderSettings::Cmp(cmp) => {
                let cmp = open_cmp(cmp, &settings, (wire.clone(), asks.clone()));
                Pki::Cmp(Box::new(cmp.map_err(&fault)?))
            }
            ProviderSettings::Acme(acme) => {
                let acme = open_acme(acme, &settings, (wire.clone(), asks.clone()), ground);
                Pki::Acme(Box::new(acme.map_err(&fault)?))
            }
        };
        let trusted = Anchors::new(&anchors).map_err(|error| fault(Box::new(error)))?;
        Ok(Self { settings, pki, asks, wire, anchors, trusted, intermediates, cross })
    }

    /// Its name.
    pub(crate) const fn name(&self) -> &Domain {
        &self.settings.name
    }

    /// Who certifies.
    pub(crate) fn provider(&self) -> &(dyn Provider + Sync) {
        match &self.pki {
            Pki::Own(own) => &**own,
            Pki::Cmp(cmp) => &**cmp,
            Pki::Acme(acme) => &**acme,
        }
    }

    /// `own`, `cmp` or `acme`.
    pub(crate) const fn kind(&self) -> &'static str {
        match &self.pki {
            Pki::Own(_) => "own",
            Pki::Cmp(_) => "cmp",
            Pki::Acme(_) => "acme",
        }
    }

    /// How long an order is tried.
    pub(crate) const fn patience(&self) -> Patience {
        Patience {
            total: Duration::from_secs(self.settings.patience_s),
            first: Duration::from_millis(self.settings.back_off_ms),
            most: Duration::from_secs(self.settings.back_off_most_s),
        }
    }

    /// What trust services are told of it.
    pub(crate) fn info(&self) -> DomainInfo {
        let bytes = |all: &[Vec<u8>]| all.iter().cloned().map(Bytes).collect::<Vec<Bytes>>();
        let mut intermediates = bytes(&self.intermediates);
        intermediates.extend(bytes(&self.cross));
        DomainInfo {
            domain: self.name().clone(),
            anchors: bytes(&self.anchors),
            intermediates,
            wants_request: self.wants_request(),
        }
    }

    const fn wants_request(&self) -> bool {
        matches!(self.pki, Pki::Acme(_))
    }

    /// First and last moment to certify, Unix seconds: what was asked for, as far as it is allowed.
    ///
    /// # Errors
    /// [`Refusal::IntervalEmpty`].
    pub(crate) fn interval(
        &self,
        asked: &Prototype,
        now: OffsetDateTime,
    ) -> Result<(i64, i64), Refusal> {
        let last = match &self.pki {
            Pki::Own(own) => Some(own.ca().validity().not_after),
            Pki::Cmp(_) | Pki::Acme(_) => None,
        };
        let life = Duration::from_secs(self.settings.key_life_s);
        let granted = pki::binding::interval(
            Validity::backdated(now, BACK, life),
            (asked.not_before, asked.not_on_or_after),
            (now, last),
        );
        let granted = granted.ok_or(Refusal::IntervalEmpty)?;
        Ok((granted.not_before.unix_timestamp(), granted.not_after.unix_timestamp()))
    }

    /// What an order asks of the provider: the same each time.
    ///
    /// # Errors
    /// [`Refusal`] says what the order lacks.
    pub(crate) fn ask(&self, order: &CentreOrder, interval: (i64, i64)) -> Result<Ask, Why> {
        let instant = |at| OffsetDateTime::from_unix_timestamp(at);
        let (Ok(not_before), Ok(not_after)) = (instant(interval.0), instant(interval.1)) else {
            return Err(Refusal::IntervalEmpty.into());
        };
        let validity = Validity { not_before, not_after };
        Ok(match &order.work {
            CentreWork::Enrol { subject, request } => {
                let spki = subject.key.clone().ok_or(Refusal::KeyMissing)?.0;
                let profile = self.profile(subject, None)?;
                Ask::Enrol(Enrolment { profile, spki, validity, request: self.request(request)? })
            }
            CentreWork::Renew { certificate, subject, request } => {
                let old = CertFacts::read(&certificate.0);
                let old = old.map_err(|_| Refusal::CertificateUnreadable)?;
                let profile = self.profile(subject, old.common_name)?;
                let (certificate, request) = (certificate.0.clone(), self.request(request)?);
                Ask::Renew(Renewal { certificate, profile, validity, request })
            }
            CentreWork::Revoke { certificate, reason: why } => {
                let certificate = certificate.0.clone();
                CertFacts::read(&certificate).map_err(|_| Refusal::CertificateUnreadable)?;
                Ask::Revoke(RevocationAsk { certificate, reason: reason(*why) })
            }
        })
    }

    fn request(&self, request: &Option<Bytes>) -> Result<Option<Vec<u8>>, Refusal> {
        if self.wants_request() && request.is_none() {
            return Err(Refusal::RequestMissing);
        }
        Ok(request.as_ref().map(|request| request.0.clone()))
    }

    fn profile(&self, subject: &Prototype, name: Option<String>) -> Result<Profile, Why> {
        let name = subject.name.clone().or(name).ok_or(Refusal::NameInvalid)?;
        let plain = !name.chars().any(char::is_control) && !name.trim().is_empty();
        if !plain || name.chars().count() > 64 {
            return Err(Refusal::NameInvalid.into());
        }
        let mut cert = names::user_cert(&name, &subject.uses, &subject.use_with)?;
        if let ProviderSettings::Own(own) = &self.settings.provider {
            cert.crl_url.clone_from(&own.crl_url);
        }
        Ok(Profile::User(cert))
    }
}

/// Every certificate in these files, DER.
fn certificates(files: &[std::path::PathBuf]) -> Result<Vec<Vec<u8>>, Source> {
    let mut all = Vec::new();
    for file in files {
        all.extend(pem::read_certificates(file)?);
    }
    Ok(all)
}

fn open_cmp(
    cmp: &CmpSettings,
    settings: &DomainSettings,
    (wire, asks): (Wire, Asks),
) -> Result<Cmp<Wire, Asks>, Source> {
    let reference = cmp.reference.clone().into_bytes();
    let credential = CmpCredential::Secret { reference, secret: cmp.secret.read(MAX_SECRET)? };
    let config = CmpConfig {
        url: cmp.url.clone(),
        credential,
        recipient: None,
        timeout: Duration::from_secs(settings.exchange_s),
        lost_answer: cmp.lost_answer,
    };
    Ok(Cmp::new(config, wire, asks)?)
}

fn open_acme(
    acme: &AcmeSettings,
    settings: &DomainSettings,
    (wire, asks): (Wire, Asks),
    ground: &Ground<'_>,
) -> Result<Acme<Wire, Asks, Challenges>, Source> {
    let challenges = Challenges::default();
    let listener = TcpListener::bind(acme.challenge_listen)?;
    let entered = ground.runtime.enter();
    let server = Server::adopt(listener, None, Limits::default())?;
    drop(entered);
    ground.runtime.spawn(server.run(challenges.router(), ground.stop.clone()));
    let config = AcmeConfig {
        directory: acme.directory.clone(),
        account_key: keys::account(&ground.records, &settings.name)?,
        contact: acme.contact.clone(),
        terms_agreed: acme.terms_agreed,
        timeout: Duration::from_secs(settings.exchange_s),
    };
    Ok(Acme::new(config, wire, asks, challenges)?)
}

/// A PKI that is shared with the threads that work for it.
pub(crate) type SharedDomain = Arc<PkiDomain>;
