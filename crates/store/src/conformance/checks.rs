//! The checks.

use std::{fmt::Debug, sync::Arc};

use super::{Nonconformance, Outcome};
use crate::{
    backend::Store,
    error::{StoreError, WatchError},
    key::{Key, Prefix},
    types::{
        Batch, Compare, Event, KeyValue, MAX_TXN_BYTES, MAX_TXN_OPS, MAX_VALUE, Op, OpReply, Range,
        Txn, TxnReply,
    },
};

fn same<T: PartialEq + Debug>(rule: &'static str, found: T, expected: T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let found = format!("expected {expected:?}, found {found:?}");
    Err(Nonconformance::Broken { rule, found })
}

fn rejected<T: Debug>(
    rule: &'static str,
    outcome: Result<T, StoreError>,
    name: &'static str,
) -> Outcome {
    match outcome {
        Err(StoreError::Rejected(rejection)) => same(rule, rejection.name(), name),
        Err(error) => Err(error.into()),
        Ok(reply) => Err(Nonconformance::Broken { rule, found: format!("accepted: {reply:?}") }),
    }
}

fn key(text: &str) -> Result<Key, Nonconformance> {
    Ok(Key::new(text)?)
}

async fn put(store: &dyn Store, name: &str, value: &str) -> Result<TxnReply, Nonconformance> {
    Ok(store.txn(Txn::put(key(name)?, value)).await?)
}

async fn names(store: &dyn Store, range: Range) -> Result<Vec<String>, Nonconformance> {
    let entries = store.range(range).await?.entries;
    Ok(entries.into_iter().map(|entry| entry.key.to_string()).collect())
}

async fn value(store: &dyn Store, name: &str) -> Result<Option<Vec<u8>>, Nonconformance> {
    Ok(store.get(&key(name)?).await?.map(|entry| entry.value))
}

pub(super) async fn put_get(store: Arc<dyn Store>) -> Outcome {
    same("an empty store is at revision 0", store.state().await?.revision, 0)?;
    same("an absent key is none", store.get(&key("a")?).await?, None)?;
    let reply = put(&*store, "a", "1").await?;
    same("the first put is revision 1", (reply.succeeded, reply.revision), (true, 1))?;
    same("a put answers its version", reply.responses, vec![OpReply::Put { version: 1 }])?;
    put(&*store, "b", "x").await?;
    put(&*store, "a", "2").await?;
    let expected = KeyValue {
        key: key("a")?,
        value: b"2".to_vec(),
        create_revision: 1,
        mod_revision: 3,
        version: 2,
        lease: None,
    };
    same("a key knows its history", store.get(&key("a")?).await?, Some(expected))?;
    put(&*store, "empty", "").await?;
    same("an empty value is a value", value(&*store, "empty").await?, Some(Vec::new()))
}

pub(super) async fn compares(store: Arc<dyn Store>) -> Outcome {
    put(&*store, "a", "1").await?;
    let a = || key("a");
    let cases = [
        (Compare::Absent(a()?), false),
        (Compare::Absent(key("b")?), true),
        (Compare::Present(a()?), true),
        (Compare::Present(key("b")?), false),
        (Compare::Version(a()?, 1), true),
        (Compare::Version(a()?, 2), false),
        (Compare::Version(key("b")?, 0), true),
        (Compare::ModRevision(a()?, 1), true),
        (Compare::ModRevision(a()?, 7), false),
        (Compare::ModRevision(key("b")?, 0), true),
    ];
    for (compare, holds) in cases {
        let txn = Txn::new().when(compare).then(Op::Get(a()?)).otherwise(Op::Get(key("b")?));
        let reply = store.txn(txn).await?;
        same("a compare decides", reply.succeeded, holds)?;
        same("a read makes no revision", reply.revision, 1)?;
    }
    let txn = Txn::new()
        .when(Compare::Present(a()?))
        .when(Compare::Absent(a()?))
        .then(Op::put(a()?, "then"))
        .otherwise(Op::put(key("c")?, "otherwise"));
    same("all compares must hold", store.txn(txn).await?.succeeded, false)?;
    same("the branch not taken does nothing", value(&*store, "a").await?, Some(b"1".to_vec()))?;
    same("the other one is run", value(&*store, "c").await?, Some(b"otherwise".to_vec()))
}

pub(super) async fn one_revision(store: Arc<dyn Store>) -> Outcome {
    put(&*store, "gone", "x").await?;
    let txn = Txn::new()
        .then(Op::put(key("a")?, "1"))
        .then(Op::Get(key("a")?))
        .then(Op::Delete(key("gone")?))
        .then(Op::Delete(key("never")?));
    let reply = store.txn(txn).await?;
    same("many changes are one revision", reply.revision, 2)?;
    let seen = reply.responses.iter().map(|reply| match reply {
        OpReply::Got(entry) => entry.as_ref().map_or(0, |entry| entry.mod_revision),
        OpReply::Put { version } => *version,
        OpReply::Deleted { existed } => u64::from(*existed),
    });
    same("operations run in order", seen.collect::<Vec<_>>(), vec![1, 2, 1, 0])?;
    let idle = store.txn(Txn::new().then(Op::Delete(key("never")?))).await?;
    same("a delete of nothing makes no revision", idle.revision, 2)
}

pub(super) async fn lives(store: Arc<dyn Store>) -> Outcome {
    put(&*store, "a", "1").await?;
    put(&*store, "a", "2").await?;
    store.txn(Txn::new().then(Op::Delete(key("a")?))).await?;
    same("a deleted key is gone", store.get(&key("a")?).await?, None)?;
    put(&*store, "a", "3").await?;
    let entry = store.get(&key("a")?).await?;
    let found = entry.map(|entry| (entry.create_revision, entry.version));
    same("versions begin again", found, Some((4, 1)))
}

pub(super) async fn limits(store: Arc<dyn Store>) -> Outcome {
    let big = |bytes| vec![0_u8; bytes];
    let over = store.txn(Txn::put(key("a")?, big(MAX_VALUE + 1))).await;
    rejected("a value has a limit", over, "value-too-large")?;
    store.txn(Txn::put(key("a")?, big(MAX_VALUE))).await?;
    let txn = Txn::put(key("a")?, big(MAX_VALUE)).then(Op::put(key("b")?, big(MAX_VALUE)));
    same("the sum is over the limit", txn.bytes() > MAX_TXN_BYTES, true)?;
    rejected("a transaction has a limit", store.txn(txn).await, "txn-too-large")?;
    let ops = |count: usize| -> Result<Txn, Nonconformance> {
        (0..count).try_fold(Txn::new(), |txn, n| Ok(txn.then(Op::put(key(&format!("n{n}"))?, "x"))))
    };
    rejected("operations have a limit", store.txn(ops(MAX_TXN_OPS + 1)?).await, "too-many-ops")?;
    store.txn(ops(MAX_TXN_OPS)?).await?;
    let twice = Txn::put(key("a")?, "1").then(Op::Delete(key("a")?));
    rejected("a key is written once", store.txn(twice).await, "duplicate-key")?;
    same("refused requests change nothing", store.state().await?.revision, 2)
}

pub(super) async fn ranges(store: Arc<dyn Store>) -> Outcome {
    for name in ["vm/b", "vm", "vm/a", "vm/a/x", "vn", "host/a", "vm0"] {
        put(&*store, name, name).await?;
    }
    let vm = || Ok::<_, Nonconformance>(Range::prefix(Prefix::new("vm/")?));
    let all = names(&*store, Range::prefix(Prefix::all())).await?;
    same(
        "all keys in order",
        all,
        owned(&["host/a", "vm", "vm/a", "vm/a/x", "vm/b", "vm0", "vn"]),
    )?;
    same("a prefix", names(&*store, vm()?).await?, owned(&["vm/a", "vm/a/x", "vm/b"]))?;
    let between = Range::between(key("vm")?, key("vm/b")?);
    same("from, to", names(&*store, between).await?, owned(&["vm", "vm/a", "vm/a/x"]))?;
    let none = Range::between(key("z")?, key("a")?);
    same("a range that is empty", names(&*store, none).await?, Vec::new())?;
    let first = store.range(vm()?.limit(2)).await?;
    same("a page says that there is more", (first.entries.len(), first.more), (2, true))?;
    for at in [None, Some(first.revision)] {
        let next = Range { at, ..vm()?.limit(2).after(key("vm/a/x")?) };
        let next = store.range(next).await?;
        let seen: Vec<_> = next.entries.iter().map(|entry| entry.key.to_string()).collect();
        same("the next page goes on", (seen, next.more), (owned(&["vm/b"]), false))?;
    }
    let exact = store.range(vm()?.limit(3)).await?;
    same("a full page with nothing after it", (exact.entries.len(), exact.more), (3, false))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) async fn past(store: Arc<dyn Store>) -> Outcome {
    put(&*store, "a", "1").await?;
    put(&*store, "b", "1").await?;
    store.txn(Txn::new().then(Op::Delete(key("a")?)).then(Op::put(key("b")?, "2"))).await?;
    put(&*store, "a", "2").await?;
    let expected: [(u64, &[&str]); 5] =
        [(0, &[]), (1, &["a"]), (2, &["a", "b"]), (3, &["b"]), (4, &["a", "b"])];
    for (at, keys) in expected {
        let range = Range::prefix(Prefix::all()).at(at);
        same("keys as they were", names(&*store, range).await?, owned(keys))?;
    }
    let then = store.range(Range::prefix(Prefix::new("b")?).at(2)).await?;
    let values: Vec<_> = then.entries.into_iter().map(|entry| entry.value).collect();
    same("values as they were", values, vec![b"1".to_vec()])?;
    let future = store.range(Range::prefix(Prefix::all()).at(5)).await;
    rejected("the future is refused", future, "future-revision")
}

fn summary(batch: Batch) -> (u64, Vec<String>) {
    let events = batch.events.into_iter().map(|event| match event {
        Event::Put(entry) => format!("put {} v{}", entry.key, entry.version),
        Event::Delete(key) => format!("delete {key}"),
    });
    (batch.revision, events.collect())
}

pub(super) async fn watch(store: Arc<dyn Store>) -> Outcome {
    put(&*store, "vm/a", "1").await?;
    put(&*store, "host/a", "1").await?;
    let txn = Txn::new()
        .then(Op::Delete(key("vm/a")?))
        .then(Op::put(key("host/b")?, "1"))
        .then(Op::put(key("vm/b")?, "1"));
    store.txn(txn).await?;
    put(&*store, "vm/b", "2").await?;
    let mut all = store.watch(Prefix::new("vm/")?, 1).await?;
    let batch = summary(all.next().await?);
    same("the first commit", batch, (1, owned(&["put vm/a v1"])))?;
    let batch = summary(all.next().await?);
    same("a commit is one batch", batch, (3, owned(&["delete vm/a", "put vm/b v1"])))?;
    let batch = summary(all.next().await?);
    same("the last commit", batch, (4, owned(&["put vm/b v2"])))?;
    let mut late = store.watch(Prefix::all(), 4).await?;
    let batch = summary(late.next().await?);
    same("a watch from a revision includes it", batch, (4, owned(&["put vm/b v2"])))
}

pub(super) async fn watch_live(store: Arc<dyn Store>) -> Outcome {
    let mut watch = store.watch(Prefix::new("k/")?, 1).await?;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..700 {
                let name = if n % 2 == 0 { "k/a" } else { "other" };
                put(&*store, name, "x").await?;
            }
            Ok::<(), Nonconformance>(())
        })
    };
    let mut last = 0;
    for version in 1..=350 {
        let batch = watch.next().await?;
        same("batches come in order", batch.revision > last, true)?;
        last = batch.revision;
        let expected = (last, vec![format!("put k/a v{version}")]);
        same("no commit is lost", summary(batch), expected)?;
    }
    let joined = writer.await;
    joined.map_err(|_| Nonconformance::Store(StoreError::Closed))?
}

pub(super) async fn compaction(store: Arc<dyn Store>) -> Outcome {
    for value in ["1", "2", "3"] {
        put(&*store, "a", value).await?;
    }
    store.txn(Txn::new().then(Op::Delete(key("a")?)).then(Op::put(key("b")?, "1"))).await?;
    let mut slow = store.watch(Prefix::all(), 2).await?;
    slow.next().await?;
    rejected("the future is refused", store.compact(9).await, "future-revision")?;
    store.compact(3).await?;
    same("compaction is known", store.state().await?.compacted, 3)?;
    rejected("it does not go back", store.compact(2).await, "revision-compacted")?;
    let old = store.range(Range::prefix(Prefix::all()).at(2)).await;
    rejected("the past before it is refused", old, "revision-compacted")?;
    let kept = names(&*store, Range::prefix(Prefix::all()).at(3)).await?;
    same("the past from it on is kept", kept, owned(&["a"]))?;
    match store.watch(Prefix::all(), 3).await {
        Err(WatchError::Compacted { compacted: 3, .. }) => {}
        other => {
            let found = format!("{other:?}");
            return Err(Nonconformance::Broken { rule: "an old watch is refused", found });
        }
    }
    let batch = store.watch(Prefix::all(), 4).await?.next().await?;
    same("a watch after it works", batch.revision, 4)?;
    store.compact(store.state().await?.revision).await?;
    same("the present is untouched", value(&*store, "b").await?, Some(b"1".to_vec()))?;
    store.scrub().await?;
    Ok(())
}

pub(super) async fn leases(store: Arc<dyn Store>) -> Outcome {
    let lease = store.lease_grant(1000, 50).await?;
    same("a lease ends after its time", lease.expires_at, 1050)?;
    let bound = |name: &str, lease| -> Result<Txn, Nonconformance> {
        Ok(Txn::new().then(Op::Put { key: key(name)?, value: vec![1], lease }))
    };
    store.txn(bound("a", Some(lease.id))?).await?;
    store.txn(bound("b", Some(lease.id))?).await?;
    store.txn(bound("b", None)?).await?;
    same("a put without a lease lets go", store.lease_expire(1049).await?, Vec::new())?;
    let longer = store.lease_keepalive(lease.id, 1000).await?;
    same("a keep-alive extends", longer.expires_at, 2000)?;
    same("not before its time", store.lease_expire(1999).await?, Vec::new())?;
    same("at its time", store.lease_expire(2000).await?, vec![lease.id])?;
    same("its keys are gone", value(&*store, "a").await?, None)?;
    same("other keys are not", value(&*store, "b").await?, Some(vec![1]))?;
    let ended = store.lease_keepalive(lease.id, 2000).await;
    rejected("an ended lease is gone", ended, "lease-not-found")?;
    let unbound = store.txn(bound("c", Some(lease.id))?).await;
    rejected("nothing is bound to it", unbound, "lease-not-found")?;
    let other = store.lease_grant(10, 0).await?;
    same("an identifier is not used again", other.id == lease.id, false)?;
    let late = store.lease_keepalive(other.id, 10).await;
    rejected("a keep-alive after the end", late, "lease-not-found")?;
    store.txn(bound("d", Some(other.id))?).await?;
    store.lease_revoke(other.id).await?;
    same("a revoked lease takes its keys", value(&*store, "d").await?, None)?;
    rejected("revoked once", store.lease_revoke(other.id).await, "lease-not-found")
}

pub(super) async fn race(store: Arc<dyn Store>) -> Outcome {
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            let mut won = 0_u64;
            for version in 0..20 {
                let compare = Compare::Version(key("counter")?, version);
                let txn = Txn::new().when(compare).then(Op::put(key("counter")?, "x"));
                won += u64::from(store.txn(txn).await?.succeeded);
            }
            Ok::<u64, Nonconformance>(won)
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += task.await.map_err(|_| Nonconformance::Store(StoreError::Closed))??;
    }
    let version = store.get(&key("counter")?).await?.map_or(0, |entry| entry.version);
    same("every success is one version", won, version)
}

pub(super) async fn chain(store: Arc<dyn Store>) -> Outcome {
    let genesis = store.state().await?.commit;
    same("the chain begins", store.commit_at(0).await?, Some(genesis))?;
    let mut seen = vec![genesis];
    for n in 0..5 {
        put(&*store, "a", &n.to_string()).await?;
        let state = store.state().await?;
        same("each commit is new", seen.contains(&state.commit), false)?;
        same("and is found", store.commit_at(state.revision).await?, Some(state.commit))?;
        seen.push(state.commit);
    }
    same("the future has none", store.commit_at(6).await?, None)?;
    let scrubbed = store.scrub().await?;
    same("a scrub passes", scrubbed, store.state().await?)?;
    store.compact(3).await?;
    same("compacted commits are gone", store.commit_at(2).await?, None)?;
    same("others are not", store.commit_at(3).await?.as_ref(), seen.get(3))
}

pub(super) async fn closing(store: Arc<dyn Store>) -> Outcome {
    let rule = "a closed store says so";
    put(&*store, "a", "1").await?;
    let mut watch = store.watch(Prefix::all(), 2).await?;
    let waiting = tokio::spawn(async move { watch.next().await });
    store.close().await?;
    let broken = |found: String| Err(Nonconformance::Broken { rule, found });
    match waiting.await {
        Ok(Err(WatchError::Store(StoreError::Closed))) => {}
        other => return broken(format!("{other:?}")),
    }
    match (store.get(&key("a")?).await, store.txn(Txn::put(key("a")?, "2")).await) {
        (Err(StoreError::Closed), Err(StoreError::Closed)) => Ok(()),
        other => broken(format!("{other:?}")),
    }
}
