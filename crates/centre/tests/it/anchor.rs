//! A centre's state directory that is put back from earlier, against the real processes: the centre and
//! a TPM. What it would undo is a revocation.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use model::centre::{CentreOrder, CentreProgress, Feed, FeedNews};
use rustix::process::Signal;
use serve::client::Client;

use crate::{
    anchored::{Running, Tpms, refused, restore, service, until},
    crash::{CONFIG, agent, push},
    support::{Authority, carried_out, enrol, revoke},
};

/// A few times as long as the counter follows a head that was written.
const ANCHORED: Duration = Duration::from_secs(4);

/// A centre, its TPM, and the authority of its passport.
struct Site {
    tpms: Tpms,
    authority: Authority,
}

impl Site {
    fn command(&self, anchor: &str) -> Command {
        let file = self.tpms.path("centre.toml");
        let anchored = format!("anchor = {{ {anchor} }}");
        fs::write(&file, CONFIG.replace("anchor = { by = 'none' }", &anchored)).unwrap();
        service(env!("CARGO_BIN_EXE_vouchsafe-centre"), &file)
    }

    fn refused(&self, anchor: &str) -> String {
        refused(self.command(anchor))
    }

    /// Has it run until it serves; with a trust service.
    async fn start(&self) -> (Running, Client) {
        let address = self.tpms.path("address");
        let _ = fs::remove_file(&address);
        let mut command = self.command(&self.tpms.by("one"));
        let running = Running(command.stdout(Stdio::null()).spawn().unwrap());
        let mut url = String::new();
        until("the centre does not start", || {
            url = fs::read_to_string(&address).unwrap_or_default();
            url.ends_with('\n')
        });
        let client = self.authority.trust(&format!("https://{}", url.trim()), "a").await;
        (running, client)
    }
}

/// The feed, and the newest CRL in it.
async fn crl(client: &Client, after: u64) -> (Feed, Option<Vec<u8>>) {
    let feed: Feed = client.get(&format!("/v1/feed?after={after}")).await.unwrap();
    let mut crls = feed.items.iter().filter_map(|item| match &item.news {
        FeedNews::Crl { crl, .. } => Some(crl.0.clone()),
        _ => None,
    });
    let newest = crls.next_back();
    (feed, newest)
}

/// Whether the order counts as carried out.
async fn known(client: &Client, order: &CentreOrder) -> bool {
    let asked = client.get::<CentreProgress>(&format!("/v1/orders/{}", order.id)).await;
    asked.is_ok_and(|progress| progress.is_final())
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_centre_is_refused_audited_and_valid_only_after_a_restore() {
    let Some(tpms) = Tpms::start(&["one"]) else { return };
    let site = Site { tpms, authority: Authority::new() };
    let stop = agent(Arc::clone(&site.authority.0), &site.tpms.path("agent.sock")).await;
    let here = site.tpms.by("one");

    // Yesterday: a certificate. Today it was revoked, which is anchored soon after its order's end:
    // here within a second.
    let (running, client) = site.start().await;
    let (enrolled, mut seen) = (enrol("acme", "k"), BTreeMap::new());
    push(&client, std::slice::from_ref(&enrolled), &mut seen).await;
    let certificate = seen[&enrolled.id].first().unwrap().clone();
    running.end(Signal::TERM);
    site.tpms.copy("state", "yesterday");
    let (running, client) = site.start().await;
    let ended = revoke("acme", &certificate);
    let progress = carried_out(&client, &ended).await;
    assert!(matches!(progress, CentreProgress::Done(_)), "{progress:?}");
    let head = |of: &str| fs::read(site.tpms.path(of).join("head.json")).unwrap();
    until("nothing is anchored", || head("state") != head("yesterday"));
    tokio::time::sleep(ANCHORED).await;
    let read = crl(&client, 0).await.0.next;
    running.end(Signal::KILL);
    site.tpms.copy("state", "today");

    site.tpms.copy("yesterday", "state");
    assert_eq!(site.refused(&here), "store-rolled-back");
    let audited = site.tpms.audited();
    assert!(audited.contains("store-rolled-back") && audited.contains("centre-start"), "{audited}");
    // The store alone, beside today's head and log; without its head; said to have no anchor.
    site.tpms.copy("today", "state");
    fs::copy(site.tpms.path("yesterday/store.redb"), site.tpms.path("state/store.redb")).unwrap();
    assert_eq!(site.refused(&here), "store-rolled-back");
    site.tpms.copy("yesterday", "state");
    fs::remove_file(site.tpms.path("state/head.json")).unwrap();
    assert_eq!(site.refused(&here), "store-head-missing");
    assert_eq!(site.refused("by = 'none'"), "store-anchor-missing");

    // Today's goes on, though it was killed.
    site.tpms.copy("today", "state");
    let (running, client) = site.start().await;
    assert!(known(&client, &ended).await);
    running.end(Signal::TERM);

    // An administrator takes yesterday's for the newest. Trust services that know more are told to
    // compare, CRLs are numbered anew, and the revocation is an order like any other.
    site.tpms.copy("yesterday", "state");
    restore(site.command(&here), "alice");
    let (running, client) = site.start().await;
    assert!(!known(&client, &ended).await && known(&client, &enrolled).await);
    let (feed, newest) = crl(&client, read).await;
    assert!(feed.resync && feed.next > read.max(1_700_000_000), "{feed:?}");
    assert!(newest.is_some());
    let progress = carried_out(&client, &ended).await;
    assert!(matches!(progress, CentreProgress::Done(_)), "{progress:?}");
    running.end(Signal::TERM);
    assert!(site.tpms.audited().contains("store-restored"));
    // And today's is the old one now.
    site.tpms.copy("today", "state");
    assert_eq!(site.refused(&here), "store-rolled-back");
    stop.trigger();
}
