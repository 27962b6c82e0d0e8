//! Many bindings at once, on the operator's word: how a library moves in. Neither pass phrases nor
//! proofs of possession are asked for, so nothing that strangers reach leads here.

use futures_util::future::join_all;
use model::{api::Bytes, keys::order::Prototype};
use pki::{ProviderError, names};
use store::{typed::Write, wait};

use super::{
    Keeper,
    issue::{Plan, entry_of, why},
    library::Library,
    record::{EntryId, long_digest},
    refusal::{Fault, Refusal, Why},
};

/// Bindings that are made durable, and audited, together.
const BATCH: usize = 1024;

impl Keeper {
    /// Certifies and records what is asked for, as an operator's bulk load. One audit entry for
    /// each 1024; how many.
    ///
    /// # Errors
    /// [`Fault`]; what was counted by the audit log before is recorded. A prototype that cannot be
    /// certified as it is ends the import.
    pub fn import(&self, asked: impl Iterator<Item = Prototype>) -> Result<u64, Fault> {
        let mut count = 0_u64;
        let mut asked = asked.peekable();
        while asked.peek().is_some() {
            let batch = asked.by_ref().take(BATCH).map(|one| self.imported(&one));
            let writes = batch.collect::<Result<Vec<_>, Why>>().map_err(|why| match why {
                Why::Fault(fault) => fault,
                Why::Refused(refusal) => Fault::ca(refusal),
            })?;
            let made = u64::try_from(writes.len()).unwrap_or(u64::MAX);
            let records = self.library.records();
            let commits = writes.into_iter().map(|write| records.commit(write));
            for committed in wait(join_all(commits)) {
                if !committed? {
                    return Err(Fault::Contended);
                }
            }
            count = count.saturating_add(made);
            let detail = format!("{made} bindings, {count} so far");
            self.journal.done("operator", "keys-imported", "library", &detail)?;
        }
        Ok(count)
    }

    fn imported(&self, asked: &Prototype) -> Result<Write, Why> {
        let name = super::authorize::check_name(asked.name.as_deref())?;
        names::certified(&asked.use_with)?;
        let key = asked.key.as_ref().ok_or(Refusal::KeyNotCertifiable)?;
        let code = asked.revocation_code_identifier.as_ref();
        let plan = Plan {
            name: name.to_owned(),
            uses: asked.uses.clone(),
            use_with: asked.use_with.clone(),
            validity: self.interval(asked.not_before, asked.not_on_or_after)?,
            revocation_code: code.map(|code| Bytes(long_digest(&[&code.0]).to_vec())),
            replaces: None,
            private: None,
            owner: None,
        };
        let profile = self.profile(&plan)?;
        let issued = self.issuer.own()?.ca.ca().issue(&profile, &key.0, plan.validity);
        let issued = issued.map_err(|error| why(ProviderError::Issue(error)))?;
        let entry = entry_of(&plan, &issued.der)?;
        Ok(Library::add(Write::new(), EntryId(issued.serial), &entry)?)
    }
}
