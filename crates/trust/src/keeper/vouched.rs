//! What is believed of another trust service: an offer only if it was announced here, by an operator
//! or by the centre; a binding only if its certificate says it and leads to an anchor.

use model::{HostId, api::Bytes, migration::Rejection};
use pki::{Anchors, CertFacts, Pool, Terms, Usage, binding, names, validate};
use serde::{Deserialize, Serialize};
use store::typed::{Place, RecordError, Write};
use time::OffsetDateTime;

use super::{
    Keeper,
    authorize::{check_operator, check_owner},
    centre::foreign_id,
    library::serial_of,
    record::{Entry, EntryId, short_digest},
    refusal::{Fault, Refusal, Why},
    status::Foreign,
};

/// How long an announcement stands, milliseconds.
const LIFE_MS: u64 = 3_600_000;
/// How far the clock of a source may be ahead, milliseconds.
const SKEW_MS: u64 = 300_000;

/// That the keys of an owner are expected from a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// From where.
    pub(super) from: HostId,
    /// A CA (DER) whose certificates are taken with them, besides those of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<Bytes>,
    /// Until when.
    pub(super) until: u64,
}

fn expectation(owner: &str) -> Result<Place<Expected>, RecordError> {
    Place::at(format!("expect/{}", short_digest(&[owner.as_bytes()])))
}

/// By what a binding of this certificate is known: its serial number if we issued it ourselves, or
/// issuer and serial number.
fn is_id_of(id: EntryId, certificate: &[u8], facts: &CertFacts) -> bool {
    let own = serial_of(certificate).and_then(EntryId::from_serial);
    own == Some(id) || foreign_id(&facts.issuer, &facts.serial) == id
}

impl Keeper {
    /// Announces that an owner's keys are to come from a host: from nobody else are they taken.
    pub(super) fn expect(
        &self,
        (owner, by): (&str, &str),
        from: &HostId,
        ca: Option<Bytes>,
    ) -> Result<u64, Why> {
        check_operator(by)?;
        check_owner(owner)?;
        if let Some(ca) = &ca {
            Anchors::new(&[&ca.0]).map_err(|_| Refusal::ForeignUnreadable)?;
        }
        let until = self.now().saturating_add(LIFE_MS);
        let place = expectation(owner)?;
        let version = self.library.get(&place)?.map_or(0, |known| known.version);
        let expected = Expected { from: from.clone(), ca, until };
        if !self.library.commit(Write::new().put(place, &expected, version)?)? {
            return Err(Fault::Contended.into());
        }
        let (subject, detail) = (format!("owner:{owner}"), format!("from {from}, until {until}"));
        self.journal.done(
            &format!("operator:{by}"),
            "key-migration-expected",
            &subject,
            &detail,
        )?;
        Ok(until)
    }

    /// The announcement under which keys of `owner` may come from `from`, if there is one.
    pub(super) fn expected(&self, owner: &str, from: &HostId) -> Result<Option<Expected>, Why> {
        let known = self.library.get(&expectation(owner)?)?.map(|known| known.value);
        Ok(known.filter(|one| one.from == *from && self.now() < one.until))
    }

    /// No clock of an honest source is so far ahead.
    pub(super) fn check_epoch(&self, epoch: u64) -> Result<(), Refusal> {
        let most = self.now().saturating_add(SKEW_MS);
        if epoch > 0 && epoch <= most { Ok(()) } else { Err(Refusal::EpochAhead) }
    }

    /// Whether a binding that another service sends is what its certificate says, and the
    /// certificate leads to a configured anchor, our own CA, or the CA that was announced.
    pub(super) fn check_vouched(
        &self,
        id: EntryId,
        entry: &Entry,
        announced: Option<&Bytes>,
    ) -> Result<(), Rejection> {
        let unfit = Rejection::ParcelUnfit;
        let facts = CertFacts::read(&entry.certificate.0).map_err(|_| unfit)?;
        let claimed = names::user_cert(&entry.name, &entry.uses, &entry.use_with);
        let claimed = claimed.map_err(|_| unfit)?;
        let certified = binding::uses(facts.uses);
        let fits = is_id_of(id, &entry.certificate.0, &facts)
            && facts.spki == entry.key.0
            && binding::millis(facts.not_before) == entry.not_before
            && binding::millis(facts.not_after).saturating_add(1000) == entry.not_on_or_after
            && entry.uses.iter().all(|one| certified.contains(one))
            && facts.common_name.is_none_or(|name| name == claimed.name)
            && claimed.names.iter().all(|name| facts.names.contains(name));
        if !fits || entry.chain.is_empty() {
            return Err(unfit);
        }
        // What is over was good in its time.
        let now = self.clock.now();
        let at = now.min(facts.not_after).max(facts.not_before);
        let pinned = announced.map(|ca| Anchors::new(&[&ca.0])).transpose().map_err(|_| unfit)?;
        let led = self.foreign.vouches(entry, pinned.as_ref(), at);
        if led { Ok(()) } else { Err(Rejection::IssuerUnknown) }
    }
}

impl Foreign {
    /// Whether an entry's certificate leads to one of our anchors, or to one of `pinned`.
    fn vouches(&self, entry: &Entry, pinned: Option<&Anchors>, at: OffsetDateTime) -> bool {
        let above = entry.chain.iter().map(|der| der.0.as_slice());
        let Ok(pool) = Pool::new(above.chain(self.between().iter().map(Vec::as_slice))) else {
            return false;
        };
        let terms = Terms::new(at, Usage::Any);
        let leads = |anchors: &Anchors| {
            let found = validate(&entry.certificate.0, &pool, anchors, None, &terms);
            found.is_ok_and(|found| binding::status(found.status()).aspects.leads())
        };
        leads(self.anchors()) || pinned.is_some_and(leads)
    }
}
