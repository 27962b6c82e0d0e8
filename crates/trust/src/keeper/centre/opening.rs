//! The first words with the centre: which PKI it is, and a certificate for the key that signs our
//! messages. Both are kept, so that a later start needs no centre.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU64},
    thread,
    time::Duration,
};

use model::{
    api::Bytes,
    centre::{CentreOrder, CentreOutcome, CentreProgress, CentreWork},
    keys::{KeyUse, UseWith, order::Prototype},
};
use pki::{Anchors, CertFacts};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, random};
use store::typed::{Place, RecordError, Records, Write};
use store::wait;

use super::{Centre, CentreError, Line, Pause, forward::Forwarded, order_id};
use crate::keeper::{
    record::{self, EntryId, OwnKey},
    refusal::Fault,
    settings::{AtCentre, Settings},
};

/// How long the first start waits for the centre.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one question after the certificate may wait at the centre.
const POLL: Duration = Duration::from_secs(5);

/// Why a PKI cannot be used from here.
const WANTS_REQUEST: &str = "the centre's PKI certifies only by the subject's own request (PKCS #10), \
     which no trust service has: choose another `keeper.centre.domain`";

/// What is remembered of the centre's PKI.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keeper) struct DomainRecord {
    /// Its trust anchors, DER.
    pub(super) anchors: Vec<Bytes>,
    /// CAs on the way to them, DER.
    #[serde(with = "ders")]
    pub(super) above: Vec<Vec<u8>>,
    /// The order for the message key's certificate.
    pub(super) message_order: EntryId,
}

mod ders {
    //! DER values, base64.
    use model::api::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(all: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        all.iter().cloned().map(Bytes).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        Ok(Vec::<Bytes>::deserialize(from)?.into_iter().map(|der| der.0).collect())
    }
}

/// How far the feed was taken, and since when the library is complete. State made before had a CRL
/// here, which is not read: the next one from the feed takes its place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct NewsRecord {
    pub(super) after: u64,
    pub(super) as_of: u64,
}

fn domain_place() -> Result<Place<DomainRecord>, RecordError> {
    Place::at("centre/domain")
}

pub(super) fn news_place() -> Result<Place<NewsRecord>, RecordError> {
    Place::at("centre/news")
}

/// Whether a state was made with a centre, and so without a CA.
pub(in crate::keeper) fn has_centre(records: &Records) -> Result<bool, Fault> {
    Ok(wait(records.get(&domain_place()?))?.is_some())
}

/// The line to the centre, and the message key with a certificate of its PKI and those above it.
pub(in crate::keeper) fn open(
    (records, dir): (&Records, &Path),
    settings: &Settings,
    clock: &SharedClock,
    centre: Arc<dyn Centre>,
    message: OwnKey,
) -> Result<(Line, OwnKey), Fault> {
    let at = settings.centre.clone().ok_or_else(|| trouble("`keeper.centre` is missing"))?;
    if wait(records.get(&record::own_key("ca")?))?.is_some() {
        return Err(trouble("this state has a CA of its own: it was made in the manner `full`"));
    }
    let mut domain = domain(records, &at, centre.as_ref(), clock)?;
    if CertFacts::read(&message.certificate.0).is_ok_and(|facts| clock.now() >= facts.not_after) {
        // The order was for the certificate that ended.
        domain.message_order = EntryId(random::bytes().map_err(Fault::key)?);
        let version = wait(records.get(&domain_place()?))?.map_or(0, |known| known.version);
        let write = Write::new().put(domain_place()?, &domain, version)?;
        if !wait(records.commit(write))? {
            return Err(Fault::Contended);
        }
    }
    let message = certified(records, (&at, &domain), centre.as_ref(), message, clock)?;
    let news = wait(records.get(&news_place()?))?.map(|news| news.value).unwrap_or_default();
    let anchors: Vec<&[u8]> = domain.anchors.iter().map(|der| der.0.as_slice()).collect();
    let first = anchors.first().ok_or_else(|| trouble("the centre's PKI has no anchor"))?;
    let began = CertFacts::read(first).map_err(Fault::ca)?.not_before;
    let line = Line {
        anchors: Anchors::new(&anchors).map_err(Fault::ca)?,
        began,
        centre,
        clock: Arc::clone(clock),
        manner: settings.manner(),
        forwarded: Forwarded::new(&at),
        at,
        domain,
        dir: dir.to_owned(),
        crls: Mutex::default(),
        as_of: AtomicU64::new(news.as_of),
        errands: Mutex::default(),
        errand_added: Condvar::new(),
        ended: Mutex::default(),
        order_ended: Condvar::new(),
        ending: std::array::from_fn(|_| Mutex::default()),
        pause: Mutex::new(Pause::default()),
    };
    line.read_lists();
    Ok((line, message))
}

/// Again until the centre answers, for a minute. What a rule says no to stays so, unless it is about
/// our passport or a clock: those become right.
fn patiently<T>(
    clock: &SharedClock,
    ask: impl Fn() -> Result<Option<T>, CentreError>,
) -> Result<T, Fault> {
    let deadline = clock.monotonic().saturating_add(PATIENCE);
    loop {
        let problem = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => trouble("the centre is not done"),
            Err(CentreError::Refused(name)) if !passes(&name) => {
                return Err(Fault::ca(CentreError::Refused(name)));
            }
            Err(error) => Fault::ca(error),
        };
        if clock.monotonic() >= deadline {
            return Err(problem);
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a refusal by this name may pass by itself.
fn passes(name: &str) -> bool {
    name.starts_with("passport-") || name == "clock-skew"
}

fn domain(
    records: &Records,
    at: &AtCentre,
    centre: &dyn Centre,
    clock: &SharedClock,
) -> Result<DomainRecord, Fault> {
    if let Some(known) = wait(records.get(&domain_place()?))? {
        return Ok(known.value);
    }
    let welcome = patiently(clock, || centre.hello().map(Some))?;
    let ours = welcome.domains.into_iter().find(|one| one.domain == at.domain);
    let ours = ours.ok_or_else(|| trouble("the centre has no PKI of this name"))?;
    if ours.wants_request {
        return Err(trouble(WANTS_REQUEST));
    }
    let known = DomainRecord {
        anchors: ours.anchors,
        above: ours.intermediates.into_iter().map(|der| der.0).collect(),
        message_order: EntryId(random::bytes().map_err(Fault::key)?),
    };
    let write = Write::new().put(domain_place()?, &known, 0)?;
    if wait(records.commit(write))? { Ok(known) } else { Err(Fault::Contended) }
}

/// The message key, certified by the centre's PKI; with a new certificate if the old one has ended.
fn certified(
    records: &Records,
    (at, domain): (&AtCentre, &DomainRecord),
    centre: &dyn Centre,
    mut message: OwnKey,
    clock: &SharedClock,
) -> Result<OwnKey, Fault> {
    let facts = CertFacts::read(&message.certificate.0).ok();
    if facts.is_some_and(|facts| clock.now() < facts.not_after) {
        return Ok(message);
    }
    let key = serve::keys::SigningKey::from_pkcs8(&model::Secret::new(message.key.0.clone()));
    let spki = key.map_err(Fault::key)?.spki().to_vec();
    let xkms = "http://www.w3.org/2002/03/xkms#".to_owned();
    let subject = Prototype {
        key: Some(Bytes(spki)),
        name: Some("vouchsafe-trust".to_owned()),
        uses: vec![KeyUse::Signature],
        use_with: vec![UseWith { application: xkms.clone(), identifier: xkms }],
        ..Prototype::default()
    };
    let order = CentreOrder {
        id: order_id(domain.message_order),
        tenant: at.tenant.clone(),
        domain: at.domain.clone(),
        work: CentreWork::Enrol { subject, request: None },
    };
    let certificate = patiently(clock, || match centre.submit(&order)? {
        CentreProgress::Refused { name, .. } => Err(CentreError::Refused(name)),
        CentreProgress::Done(done) => Ok(certificate(done)),
        CentreProgress::Queued { .. } | CentreProgress::Working => {
            match centre.progress(order.id, POLL)? {
                CentreProgress::Done(done) => Ok(certificate(done)),
                CentreProgress::Refused { name, .. } => Err(CentreError::Refused(name)),
                CentreProgress::Queued { .. } | CentreProgress::Working => Ok(None),
            }
        }
    })?;
    message.certificate = certificate;
    let place = record::own_key("message")?;
    let version = wait(records.get(&place))?.map_or(0, |known| known.version);
    let write = Write::new().put(place, &message, version)?;
    if wait(records.commit(write))? { Ok(message) } else { Err(Fault::Contended) }
}

fn certificate(done: CentreOutcome) -> Option<Bytes> {
    match done {
        CentreOutcome::Certified { certificate, .. } => Some(certificate),
        CentreOutcome::Revoked { .. } => None,
    }
}

fn trouble(what: &'static str) -> Fault {
    Fault::ca(std::io::Error::other(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_state_made_before_are_read() {
        let read: NewsRecord =
            serde_json::from_str(r#"{"after":7,"as_of":8,"crl":"MAA="}"#).unwrap();
        assert_eq!((read.after, read.as_of), (7, 8));
    }
}
