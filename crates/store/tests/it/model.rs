//! Random histories on each back end against a model of plain maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use proptest::prelude::*;
use store::{
    Batch, Compare, Event, Key, KeyValue, LeaseId, LocalStore, Op, OpReply, Prefix, Range, Store,
    StoreError, Txn, WatchError,
};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Action {
    Txn(Txn),
    /// A range with this prefix, limit and page start, this many revisions ago.
    Range(&'static str, usize, Option<u8>, Option<u64>),
    /// A watch of this prefix from so many revisions ago, read to the end.
    Watch(&'static str, u64),
    Compact(u64),
    Grant(u64),
    Keepalive(u64),
    Revoke(u64),
    /// Lets time pass and ends leases.
    Expire(u64),
    Reopen,
}

const PREFIXES: [&str; 4] = ["", "a", "a/", "b"];

fn key(n: u8) -> Key {
    Key::new(["a", "a/x", "a/y", "a0", "b", "b/x", "c"][usize::from(n % 7)]).unwrap()
}

fn an_op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        4 => (any::<u8>(), value, prop::option::weighted(0.3, 1..4_u64)).prop_map(|(k, value, lease)| {
            Op::Put { key: key(k), value, lease: lease.map(LeaseId) }
        }),
        2 => any::<u8>().prop_map(|k| Op::Delete(key(k))),
        1 => any::<u8>().prop_map(|k| Op::Get(key(k))),
    ]
}

fn a_compare() -> impl Strategy<Value = Compare> {
    (any::<u8>(), 0..4_u8, 0..6_u64).prop_map(|(k, kind, n)| match kind {
        0 => Compare::Absent(key(k)),
        1 => Compare::Present(key(k)),
        2 => Compare::Version(key(k), n),
        _ => Compare::ModRevision(key(k), n),
    })
}

fn an_action() -> impl Strategy<Value = Action> {
    let ops = || prop::collection::vec(an_op(), 0..4);
    let prefix = || prop::sample::select(&PREFIXES[..]);
    prop_oneof![
        12 => (prop::collection::vec(a_compare(), 0..2), ops(), ops())
            .prop_map(|(compares, then, otherwise)| Action::Txn(Txn { compares, then, otherwise })),
        4 => (prefix(), 0..5_usize, prop::option::of(any::<u8>()), prop::option::of(0..8_u64))
            .prop_map(|(p, limit, after, ago)| Action::Range(p, limit, after, ago)),
        4 => (prefix(), 0..10_u64).prop_map(|(p, ago)| Action::Watch(p, ago)),
        1 => (0..6_u64).prop_map(Action::Compact),
        1 => (1..20_u64).prop_map(Action::Grant),
        1 => (1..5_u64).prop_map(Action::Keepalive),
        1 => (1..5_u64).prop_map(Action::Revoke),
        1 => (0..9_u64).prop_map(Action::Expire),
        1 => Just(Action::Reopen),
    ]
}

type Live = BTreeMap<Key, KeyValue>;

#[derive(Default)]
struct Model {
    live: Live,
    /// The state after each revision.
    past: BTreeMap<u64, Live>,
    commits: BTreeMap<u64, Vec<Event>>,
    revision: u64,
    compacted: u64,
    leases: BTreeMap<u64, (u64, u64)>,
    next_lease: u64,
    now: u64,
}

impl Model {
    fn new() -> Self {
        let past = BTreeMap::from([(0, Live::new())]);
        Self { past, next_lease: 1, ..Self::default() }
    }

    fn commit(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.commits.insert(self.revision, events);
            self.past.insert(self.revision, self.live.clone());
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(k) => !self.live.contains_key(k),
            Compare::Present(k) => self.live.contains_key(k),
            Compare::Version(k, v) => self.live.get(k).map_or(0, |e| e.version) == *v,
            Compare::ModRevision(k, r) => self.live.get(k).map_or(0, |e| e.mod_revision) == *r,
        }
    }

    /// What the transaction answers, or the name of its refusal.
    fn txn(&mut self, txn: &Txn) -> Result<(bool, u64, Vec<OpReply>), &'static str> {
        for branch in [&txn.then, &txn.otherwise] {
            let writes: Vec<_> = branch.iter().filter(|op| !matches!(op, Op::Get(_))).collect();
            let keys: BTreeSet<_> = writes.iter().map(|op| op.key()).collect();
            if keys.len() < writes.len() {
                return Err("duplicate-key");
            }
        }
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        let unknown = |op: &Op| matches!(op, Op::Put { lease: Some(id), .. } if !self.leases.contains_key(&id.0));
        if ops.iter().any(unknown) {
            return Err("lease-not-found");
        }
        let (mut events, mut replies) = (Vec::new(), Vec::new());
        for op in ops {
            replies.push(self.op(op, &mut events));
        }
        self.commit(events);
        Ok((succeeded, self.revision, replies))
    }

    fn op(&mut self, op: &Op, events: &mut Vec<Event>) -> OpReply {
        let mod_revision = self.revision + 1;
        match op {
            Op::Get(k) => OpReply::Got(self.live.get(k).cloned()),
            Op::Delete(k) => {
                let existed = self.live.remove(k).is_some();
                events.extend(existed.then(|| Event::Delete(k.clone())));
                OpReply::Deleted { existed }
            }
            Op::Put { key: k, value, lease } => {
                let before = self.live.get(k);
                let entry = KeyValue {
                    key: k.clone(),
                    value: value.clone(),
                    create_revision: before.map_or(mod_revision, |b| b.create_revision),
                    mod_revision,
                    version: before.map_or(1, |b| b.version + 1),
                    lease: *lease,
                };
                let version = entry.version;
                self.live.insert(k.clone(), entry.clone());
                events.push(Event::Put(entry));
                OpReply::Put { version }
            }
        }
    }

    fn revoke(&mut self, id: u64) -> bool {
        if self.leases.remove(&id).is_none() {
            return false;
        }
        let bound = |entry: &&KeyValue| entry.lease == Some(LeaseId(id));
        let keys: Vec<Key> = self.live.values().filter(bound).map(|e| e.key.clone()).collect();
        keys.iter().for_each(|k| drop(self.live.remove(k)));
        self.commit(keys.into_iter().map(Event::Delete).collect());
        true
    }

    fn batches(&self, prefix: &Prefix, from: u64) -> Vec<Batch> {
        let touching = self.commits.range(from..).map(|(revision, events)| Batch {
            revision: *revision,
            events: events.iter().filter(|e| prefix.covers(e.key())).cloned().collect(),
        });
        touching.filter(|batch| !batch.events.is_empty()).collect()
    }
}

struct Subject {
    store: Arc<dyn Store>,
    /// Where the file is; none in memory.
    file: Option<(TempDir, PathBuf)>,
}

impl Subject {
    fn memory() -> Self {
        Self { store: Arc::new(LocalStore::memory().unwrap()), file: None }
    }

    fn file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        Self { store: Arc::new(LocalStore::open(&path).unwrap()), file: Some((dir, path)) }
    }

    async fn reopen(&mut self) {
        if let Some((_, path)) = &self.file {
            self.store.close().await.unwrap();
            self.store = Arc::new(LocalStore::open(path).unwrap());
        }
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> Result<T, &'static str> {
    outcome.map_err(|error| {
        let StoreError::Rejected(rejection) = error else { panic!("{error:?}") };
        rejection.name()
    })
}

async fn step(subject: &mut Subject, model: &mut Model, action: Action) {
    let store = Arc::clone(&subject.store);
    match action {
        Action::Txn(txn) => {
            let found = refusal(store.txn(txn.clone()).await);
            let found = found.map(|reply| (reply.succeeded, reply.revision, reply.responses));
            assert_eq!(found, model.txn(&txn));
        }
        Action::Range(prefix, limit, after, ago) => {
            range(&*store, model, prefix, limit, after, ago).await;
        }
        Action::Watch(prefix, ago) => watch(&*store, model, prefix, ago).await,
        Action::Compact(ago) => compact(&*store, model, ago).await,
        Action::Grant(ttl) => {
            let lease = store.lease_grant(ttl, model.now).await.unwrap();
            assert_eq!(lease.id, LeaseId(model.next_lease));
            model.leases.insert(model.next_lease, (ttl, model.now + ttl));
            model.next_lease += 1;
        }
        Action::Keepalive(id) => {
            let found = refusal(store.lease_keepalive(LeaseId(id), model.now).await);
            let alive = model.leases.get_mut(&id).filter(|(_, end)| *end > model.now);
            let expected = alive.map(|lease| {
                lease.1 = model.now + lease.0;
                lease.1
            });
            assert_eq!(found.map(|l| l.expires_at), expected.ok_or("lease-not-found"));
        }
        Action::Revoke(id) => {
            let found = refusal(store.lease_revoke(LeaseId(id)).await);
            let known = model.revoke(id);
            assert_eq!(found, known.then_some(model.revision).ok_or("lease-not-found"));
        }
        Action::Expire(time) => {
            model.now += time;
            let ended = model.leases.iter().filter(|(_, (_, end))| *end <= model.now);
            let ended: Vec<u64> = ended.map(|(id, _)| *id).collect();
            let found = store.lease_expire(model.now).await.unwrap();
            assert_eq!(found, ended.iter().copied().map(LeaseId).collect::<Vec<_>>());
            assert!(ended.into_iter().all(|id| model.revoke(id)));
        }
        Action::Reopen => subject.reopen().await,
    }
    assert_eq!(subject.store.state().await.unwrap().revision, model.revision);
}

async fn range(
    store: &dyn Store,
    model: &Model,
    prefix: &str,
    limit: usize,
    after: Option<u8>,
    ago: Option<u64>,
) {
    let prefix = Prefix::new(prefix).unwrap();
    let after = after.map(key);
    let at = ago.map(|ago| model.revision.saturating_sub(ago));
    let range = Range { after: after.clone(), at, ..Range::prefix(prefix.clone()).limit(limit) };
    let found = refusal(store.range(range).await);
    let at = at.unwrap_or(model.revision);
    if at < model.compacted {
        assert_eq!(found.unwrap_err(), "revision-compacted");
        return;
    }
    let past = model.past[&at].values();
    let wanted =
        |e: &&KeyValue| prefix.covers(&e.key) && after.as_ref().is_none_or(|after| e.key > *after);
    let all: Vec<KeyValue> = past.filter(wanted).cloned().collect();
    let found = found.unwrap();
    assert_eq!((found.more, found.revision), (all.len() > limit, at));
    assert_eq!(found.entries, all.into_iter().take(limit).collect::<Vec<_>>());
}

async fn watch(store: &dyn Store, model: &Model, prefix: &str, ago: u64) {
    let prefix = Prefix::new(prefix).unwrap();
    let from = model.revision.saturating_sub(ago).max(1);
    let mut watch = match store.watch(prefix.clone(), from).await {
        Ok(watch) => watch,
        Err(WatchError::Compacted { compacted, .. }) => {
            assert!(from <= model.compacted && compacted == model.compacted);
            return;
        }
        Err(other) => panic!("{other:?}"),
    };
    assert!(from > model.compacted);
    for batch in model.batches(&prefix, from) {
        assert_eq!(watch.next().await.unwrap(), batch);
    }
    // Then it waits.
    let more = tokio::time::timeout(std::time::Duration::ZERO, watch.next()).await;
    assert!(more.is_err(), "a batch that the model does not have: {more:?}");
}

async fn compact(store: &dyn Store, model: &mut Model, ago: u64) {
    let revision = model.revision.saturating_sub(ago);
    let found = refusal(store.compact(revision).await);
    if revision <= model.compacted {
        assert_eq!(found.unwrap_err(), "revision-compacted");
        return;
    }
    model.compacted = revision;
    model.revision += 1;
    model.past.insert(model.revision, model.live.clone());
    assert_eq!(found.unwrap(), model.revision);
}

fn run(mut subject: Subject, actions: Vec<Action>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::new();
        for action in actions {
            step(&mut subject, &mut model, action).await;
        }
        subject.store.scrub().await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_store_in_memory_does_what_the_model_does(actions in prop::collection::vec(an_action(), 1..60)) {
        run(Subject::memory(), actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_in_a_file_does_what_the_model_does(actions in prop::collection::vec(an_action(), 1..60)) {
        run(Subject::file(), actions);
    }
}
