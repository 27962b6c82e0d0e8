//! Issuing a certificate that becomes a binding in the transaction that records it.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::KeyPair as _,
};
use model::{
    Secret,
    api::Bytes,
    keys::{KeyUse, UseWith},
};
use pki::{
    Ask, CertFacts, Enrolment, IssueError, LedgerError, Outcome, Profile, Progress, Provider,
    ProviderError, Renewal, RequestId, UserCert, Validity,
    binding::{interval, millis, uses},
    names,
};
use serve::random;
use store::typed::Write;

use super::{
    Keeper,
    keyring::BACK,
    library::Library,
    owner::revoked_key,
    record::{self, Entry, EntryId},
    refusal::{Fault, Refusal, Why},
};

/// What is to be certified.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) uses: Vec<KeyUse>,
    pub(super) use_with: Vec<UseWith>,
    pub(super) validity: Validity,
    pub(super) revocation_code: Option<Bytes>,
    pub(super) replaces: Option<EntryId>,
    /// The private key, if it was made here, and until when it is kept; 0: in escrow.
    pub(super) private: Option<(Secret<Vec<u8>>, u64)>,
    /// Whose it is.
    pub(super) owner: Option<String>,
}

/// What is written with the certificate.
pub(super) type With = Box<dyn FnOnce(Write, EntryId) -> Result<Write, Why> + Send>;

/// For which key, or in place of which certificate.
pub(super) enum For<'a> {
    Key(&'a [u8]),
    Certificate(&'a [u8]),
}

impl Keeper {
    /// Issues a certificate; when it returns, the binding and what is written `with` it are durable.
    pub(super) fn issue(&self, ask: &For<'_>, plan: Plan, with: With) -> Result<EntryId, Why> {
        let request = RequestId(random::bytes().map_err(Fault::key)?);
        let profile = self.profile(&plan)?;
        let validity = plan.validity;
        let sealer =
            plan.private.as_ref().map(|_| self.sealer(plan.owner.as_deref())).transpose()?;
        let own = self.issuer.own()?;
        let guard = self.guard(plan.owner.as_deref())?;
        let bound = matches!(ask, For::Key(_));
        own.ledger.stage(request, move |write, id, certificate| {
            let entry = entry_of(&plan, certificate)?;
            let mut write = Library::add(write, id, &entry)?;
            if bound {
                write = write.only_if(revoked_key(&entry.key.0)?, 0);
            }
            let mut write = guard.owning(write, &record::entry(id)?)?;
            if let Some(((key, until), sealer)) = plan.private.as_ref().zip(sealer.as_ref()) {
                let sealed = sealer.seal(id, key.expose(), *until)?;
                let place = if *until == 0 { record::escrow(id)? } else { record::made(id)? };
                write = write.put(place, &sealed, 0)?;
            }
            with(write, id)
        });
        let now = self.clock.now();
        let ask = match *ask {
            For::Key(spki) => {
                Ask::Enrol(Enrolment { profile, spki: spki.to_vec(), validity, request: None })
            }
            For::Certificate(certificate) => {
                let certificate = certificate.to_vec();
                Ask::Renew(Renewal { certificate, profile, validity, request: None })
            }
        };
        let progress = own.ca.submit(request, &ask, now);
        own.ledger.unstage(request);
        match progress.map_err(why)? {
            Progress::Done(Outcome::Issued { certificate, .. }) => {
                let serial = super::library::serial_of(&certificate);
                let id = serial.and_then(EntryId::from_serial);
                id.ok_or_else(|| Fault::ca(IssueError::Random).into())
            }
            Progress::Done(Outcome::Revoked(_)) | Progress::Pending => {
                Err(Fault::ca(ProviderError::UnknownRequest).into())
            }
        }
    }

    pub(super) fn profile(&self, plan: &Plan) -> Result<Profile, Refusal> {
        let certified = names::user_cert(&plan.name, &plan.uses, &plan.use_with)?;
        Ok(Profile::User(UserCert {
            crl_url: self.settings.crl_url.clone(),
            ocsp_url: self.settings.ocsp_url.clone(),
            ..certified
        }))
    }

    /// The interval to certify: what was asked for, as far as it is allowed.
    pub(super) fn interval(
        &self,
        not_before: Option<i64>,
        not_on_or_after: Option<i64>,
    ) -> Result<Validity, Refusal> {
        let now = self.clock.now();
        let life = std::time::Duration::from_secs(self.settings.key_life_s);
        let allowed = Validity::backdated(now, BACK, life);
        let granted = interval(allowed, (not_before, not_on_or_after), (now, self.issuer.ends()));
        granted.ok_or(Refusal::IntervalEmpty)
    }
}

/// A new RSA key: PKCS#8 and SubjectPublicKeyInfo.
pub(super) fn make_key() -> Result<(Secret<Vec<u8>>, Vec<u8>), Fault> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(Fault::key)?;
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(Fault::key)?;
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(Fault::key)?;
    Ok((Secret::new(pkcs8.as_ref().to_vec()), spki.as_ref().to_vec()))
}

/// The entry of a certificate that was just made: uses and interval as certified.
pub(super) fn entry_of(plan: &Plan, certificate: &[u8]) -> Result<Entry, Why> {
    let facts = CertFacts::read(certificate).map_err(Fault::ca)?;
    Ok(Entry {
        certificate: Bytes(certificate.to_vec()),
        key: Bytes(facts.spki),
        name: plan.name.clone(),
        uses: uses(facts.uses).into_iter().filter(|one| wanted(plan, *one)).collect(),
        use_with: plan.use_with.clone(),
        not_before: millis(facts.not_before),
        not_on_or_after: millis(facts.not_after).saturating_add(1000),
        revoked_at: None,
        replaced_by: None,
        replaces: plan.replaces,
        revocation_code: plan.revocation_code.clone(),
        escrowed: matches!(plan.private, Some((_, 0))),
        owner: plan.owner.clone(),
        chain: Vec::new(),
    })
}

/// A key usage can stand for more than one use; what was not asked for is not answered.
fn wanted(plan: &Plan, one: KeyUse) -> bool {
    plan.uses.is_empty() || plan.uses.contains(&one)
}

/// In the words of the keeper.
pub(super) fn why(error: ProviderError) -> Why {
    use pki::CertRejection::Expired;
    // What the ledger says is what was staged in it says.
    if let ProviderError::Unavailable(error) = error {
        return match error.downcast::<LedgerError>().map(|ledger| ledger.0.downcast::<Why>()) {
            Ok(Ok(why)) => *why,
            Ok(Err(other)) | Err(other) => Fault::Ca(other).into(),
        };
    }
    let refusal = if let ProviderError::Issue(issue) = &error {
        refusal_of(issue)
    } else if matches!(error, ProviderError::Revoked) {
        Some(Refusal::BindingRevoked)
    } else if matches!(error, ProviderError::NotOurs(Expired)) {
        Some(Refusal::BindingExpired)
    } else if matches!(error, ProviderError::NotOurs(_)) {
        Some(Refusal::IssuerElsewhere)
    } else {
        None
    };
    refusal.map_or_else(|| Fault::ca(error).into(), Why::Refused)
}

/// The rule that an issuing CA follows in the asker's words, if it is the asker's fault.
fn refusal_of(issue: &IssueError) -> Option<Refusal> {
    if matches!(issue, IssueError::SubjectKey | IssueError::KeyUses) {
        Some(Refusal::KeyNotCertifiable)
    } else if matches!(issue, IssueError::Name(_)) {
        Some(Refusal::UseWithInvalid)
    } else if matches!(issue, IssueError::Validity) {
        Some(Refusal::IntervalEmpty)
    } else {
        None
    }
}
