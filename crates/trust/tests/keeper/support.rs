//! A keeper in a directory of its own, with a clock that the test moves.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    AuditEntry, Outcome, Secret,
    api::Bytes,
    keys::{
        Found, KeyBinding, KeyExample, KeyUse, Query, StatusValue,
        admin::{AdminReply, AdminRequest, Authorize},
        order::{
            AboutBinding, AuthenticationKey, Done, KeyFailure, KeyOperation, KeyOutcome, Order,
            Prototype, Receipt, Requester, SecretBytes,
        },
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::{
    clock::{Clock, SharedClock, SystemClock},
    keys::SigningKey,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use trust::keeper::{Centre, Keeper, Settings};
use xkms::passphrase::{Preparation, SharedSecret};

/// What a value of the expected shape holds.
macro_rules! held {
    ($value:expr, $shape:pat => $held:expr) => {{
        let value = $value;
        let shown = format!("{value:?}");
        let $shape = value else { panic!("unexpected: {shown}") };
        $held
    }};
}
pub(crate) use held;

/// The system's clock, ahead by as much as a test says.
#[derive(Debug, Default)]
pub(crate) struct Ahead(AtomicU64);

impl Ahead {
    /// Time passes.
    pub(crate) fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Ahead {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + self.by()
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + self.by()
    }
}

/// What the lab allows.
pub(crate) fn open_settings() -> Settings {
    Settings { pass_phrases: true, any_use_with: true, ..Settings::default() }
}

/// Waits until nobody else has it: its threads end when they see that they shall.
pub(crate) fn alone<T>(keeper: &Arc<T>) {
    for _ in 0..12_000 {
        if Arc::strong_count(keeper) == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("its threads go on");
}

/// A keeper under test.
pub(crate) struct Rig {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) clock: Arc<Ahead>,
    pub(crate) dir: TempDir,
    settings: Settings,
    centre: Option<Arc<dyn Centre>>,
}

impl Rig {
    pub(crate) fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        Self::opened(dir, clock, settings, None)
    }

    /// A keeper without a CA of its own.
    pub(crate) fn at_centre(settings: Settings, centre: Arc<dyn Centre>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::opened(dir, Arc::default(), settings, Some(centre))
    }

    fn opened(
        dir: TempDir,
        clock: Arc<Ahead>,
        settings: Settings,
        centre: Option<Arc<dyn Centre>>,
    ) -> Self {
        let (shared, there): (SharedClock, _) = (clock.clone(), centre.clone());
        let keeper = Keeper::open_with(
            settings.clone(),
            dir.path(),
            shared,
            (there, anchor::Anchoring::none()),
        )
        .unwrap();
        Self { keeper: Arc::new(keeper), clock, dir, settings, centre }
    }

    pub(crate) fn open() -> Self {
        Self::new(open_settings())
    }

    /// The same state, after an orderly end.
    pub(crate) fn restart(self) -> Self {
        self.away(|| ())
    }

    /// The same state, after another had it.
    pub(crate) fn away(self, meanwhile: impl FnOnce()) -> Self {
        let Self { keeper, clock, dir, settings, centre } = self;
        keeper.close().unwrap();
        alone(&keeper);
        drop(keeper);
        meanwhile();
        Self::opened(dir, clock, settings, centre)
    }

    /// A pass phrase for a name.
    pub(crate) fn authorize(&self, name: &str) -> String {
        self.authorize_as(authorize(name)).unwrap()
    }

    pub(crate) fn authorize_as(&self, asked: Authorize) -> Result<String, String> {
        let reply = self.keeper.administer(AdminRequest::Authorize(asked));
        if let AdminReply::Refused { name, .. } = reply {
            return Err(name);
        }
        Ok(held!(reply, AdminReply::Authorized { pass_phrase, .. } => text(&pass_phrase)))
    }

    /// The holder whose key this phrase is, as the reader finds it.
    pub(crate) fn holder(
        &self,
        operation: KeyOperation,
        binding: &KeyExample,
        phrase: &str,
    ) -> Option<String> {
        let secret = SharedSecret::new(phrase, Preparation::Saslprep).unwrap();
        let mac = secret.authentication_key();
        self.keys(operation, binding).into_iter().find_map(|(holder, key)| match key {
            AuthenticationKey::Mac(known) if known.0.expose() == mac.expose() => Some(holder),
            AuthenticationKey::Mac(_) | AuthenticationKey::Public(_) => None,
        })
    }

    /// The holder with this public key.
    pub(crate) fn signer(
        &self,
        operation: KeyOperation,
        binding: &KeyExample,
        key: &SigningKey,
    ) -> Option<String> {
        self.keys(operation, binding).into_iter().find_map(|(holder, known)| match known {
            AuthenticationKey::Public(spki) if spki.0 == key.spki() => Some(holder),
            AuthenticationKey::Mac(_) | AuthenticationKey::Public(_) => None,
        })
    }

    fn keys(
        &self,
        operation: KeyOperation,
        binding: &KeyExample,
    ) -> Vec<(String, AuthenticationKey)> {
        let binding = binding.clone();
        let answer = self.keeper.serve(KeyRequest::AuthenticationKeys { operation, binding });
        if matches!(answer, KeyAnswer::Failed(_)) {
            return Vec::new();
        }
        let keys = held!(answer, KeyAnswer::Keys(keys) => keys);
        keys.into_iter().map(|one| (one.holder, one.key)).collect()
    }

    /// Registers a key under a name with a phrase of its own.
    pub(crate) fn register(&self, name: &str, key: &SigningKey) -> KeyBinding {
        let phrase = self.authorize(name);
        let done = self.register_by(&phrase, &prototype(name, Some(key)), Some(key)).unwrap();
        done.bindings.into_iter().next().unwrap()
    }

    pub(crate) fn register_by(
        &self,
        phrase: &str,
        asked: &Prototype,
        possessed: Option<&SigningKey>,
    ) -> Result<Done, KeyFailure> {
        let example = KeyExample { name: asked.name.clone(), ..KeyExample::default() };
        let holder = self.holder(KeyOperation::Register, &example, phrase);
        let order = order(holder.unwrap_or_default(), possessed);
        done(self.keeper.serve(KeyRequest::Register { order, asked: asked.clone() }))
    }

    /// An order about a binding, signed by its key.
    pub(crate) fn about(
        &self,
        operation: KeyOperation,
        binding: KeyExample,
        key: &SigningKey,
    ) -> AboutBinding {
        let holder = self.signer(operation, &binding, key);
        AboutBinding { order: order(holder.unwrap_or_default(), Some(key)), binding }
    }

    pub(crate) fn validate(&self, binding: KeyExample) -> Found {
        let query = Query { binding, instant: None, limit: 10 };
        held!(self.keeper.serve(KeyRequest::Validate(query)), KeyAnswer::Found(found) => found)
    }

    pub(crate) fn locate(&self, binding: KeyExample) -> Found {
        let query = Query { binding, instant: None, limit: 10 };
        held!(self.keeper.serve(KeyRequest::Locate(query)), KeyAnswer::Found(found) => found)
    }

    /// The verdict about the only binding that is like this.
    pub(crate) fn verdict(&self, binding: KeyExample) -> StatusValue {
        let found = self.validate(binding);
        assert_eq!(found.bindings.len(), 1);
        found.bindings[0].status.as_ref().unwrap().value
    }

    pub(crate) fn published(&self, request: KeyRequest) -> Vec<u8> {
        held!(self.keeper.serve(request), KeyAnswer::Published(bytes) => bytes.0)
    }

    /// Why a request is not answered.
    pub(crate) fn failure(&self, request: KeyRequest) -> KeyFailure {
        held!(self.keeper.serve(request), KeyAnswer::Failed(failure) => failure)
    }

    /// The audit log.
    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        audit(self.dir.path())
    }

    /// The names of all refusals in the audit log.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let name = |entry: AuditEntry| match entry.outcome {
            Outcome::Refused(name) => Some(name),
            Outcome::Done => None,
        };
        self.audit().into_iter().filter_map(name).collect()
    }

    pub(crate) fn last_refusal(&self) -> String {
        self.refusals().pop().unwrap_or_default()
    }
}

pub(crate) fn audit(dir: &Path) -> Vec<AuditEntry> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir.join("audit")).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment"));
    files.sort();
    let lines: Vec<String> =
        files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    lines.iter().flat_map(|text| text.lines()).map(|l| AuditEntry::from_line(l).unwrap()).collect()
}

pub(crate) fn authorize(name: &str) -> Authorize {
    Authorize {
        name: name.to_owned(),
        uses: Vec::new(),
        use_with: Vec::new(),
        life_s: None,
        owner: None,
        operator: "alice".to_owned(),
    }
}

pub(crate) fn prototype(name: &str, key: Option<&SigningKey>) -> Prototype {
    Prototype {
        name: Some(name.to_owned()),
        key: key.map(|key| Bytes(key.spki().to_vec())),
        uses: vec![KeyUse::Signature],
        ..Prototype::default()
    }
}

pub(crate) fn order(holder: String, possessed: Option<&SigningKey>) -> Order {
    Order {
        requester: Requester::Key(holder),
        possessed: possessed.map(|key| Bytes(key.spki().to_vec())),
        receipt: receipt("r"),
        may_wait: false,
    }
}

pub(crate) fn receipt(id: &str) -> Receipt {
    Receipt { response_id: format!("response-{id}"), request_id: format!("request-{id}") }
}

pub(crate) fn named(name: &str) -> KeyExample {
    KeyExample { name: Some(name.to_owned()), ..KeyExample::default() }
}

pub(crate) fn by_key(key: &SigningKey) -> KeyExample {
    KeyExample { key: Some(Bytes(key.spki().to_vec())), ..KeyExample::default() }
}

pub(crate) fn by_certificate(der: &Bytes) -> KeyExample {
    KeyExample { certificates: vec![der.clone()], ..KeyExample::default() }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

pub(crate) fn secret(bytes: &[u8]) -> SecretBytes {
    SecretBytes::new(Secret::new(bytes.to_vec()))
}

pub(crate) fn text(secret: &SecretBytes) -> String {
    String::from_utf8(secret.0.expose().clone()).unwrap()
}

/// What was done, or why not.
pub(crate) fn done(answer: KeyAnswer) -> Result<Done, KeyFailure> {
    if let KeyAnswer::Failed(failure) = answer {
        return Err(failure);
    }
    Ok(held!(answer, KeyAnswer::Outcome(KeyOutcome::Done(done)) => done))
}
