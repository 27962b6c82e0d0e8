//! The centre as registrar of key migrations: it names two trust services to each other, and takes
//! note.

use model::{
    centre::{
        CentreCommand, CentreReply, Feed, FeedNews, Hello, MigrationReport, MigrationStage, Welcome,
    },
    child,
};
use serve::client::Client;

use crate::support::{OWN, World, refusal};

async fn hello(client: &Client, peer_url: &str) -> Welcome {
    let hello = Hello { peer_url: peer_url.to_owned() };
    client.post("/v1/services/hello", &hello).await.unwrap()
}

/// How many trust services the centre lists.
fn services(world: &World) -> usize {
    match told(world, &CentreCommand::Status) {
        CentreReply::Status(status) => status.services.len(),
        other => panic!("{other:?}"),
    }
}

async fn report(client: &Client, id: &str, stage: MigrationStage) -> Result<(), String> {
    let body = MigrationReport { stage, refusal: None };
    let sent = client.post::<_, ()>(&format!("/v1/migrations/{id}/report"), &body).await;
    sent.map_err(|error| error.refusal().unwrap().to_owned())
}

/// What an administrator is told over the socket.
fn told(world: &World, command: &CentreCommand) -> CentreReply {
    let mut socket = std::os::unix::net::UnixStream::connect(world.centre.socket()).unwrap();
    child::send(&mut socket, command).unwrap();
    child::receive(&mut socket).unwrap().unwrap()
}

fn migrate(owner: &str, from: &str, to: &str) -> CentreCommand {
    CentreCommand::Migrate {
        owner: owner.to_owned(),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        operator: "ann".to_owned(),
    }
}

fn refused(reply: &CentreReply) -> &str {
    let CentreReply::Refused { name, .. } = reply else { panic!("{reply:?}") };
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn both_services_learn_of_a_migration_and_an_owner_moves_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let (a, b, c) = (world.trust("a").await, world.trust("b").await, world.trust("z").await);
    hello(&a, "").await;
    assert_eq!(services(&world), 0, "one that nobody reaches is not listed");
    assert_eq!(refused(&told(&world, &migrate("v1", "a", "b"))), "service-unknown");
    hello(&a, "https://127.0.0.1:1001").await;
    hello(&b, "https://127.0.0.1:1002").await;
    assert_eq!(services(&world), 2);
    assert_eq!(refused(&told(&world, &migrate("../v1", "a", "b"))), "owner-invalid");
    assert_eq!(refused(&told(&world, &migrate("v1", "a", "a"))), "same-service");
    let reply = told(&world, &migrate("v1", "a", "b"));
    let CentreReply::Migrating(order) = reply else { panic!("{reply:?}") };
    assert_eq!(order.to.peer_url, "https://127.0.0.1:1002");
    assert_eq!(refused(&told(&world, &migrate("v1", "b", "a"))), "owner-moving");
    for client in [&a, &b] {
        let feed: Feed = client.get("/v1/feed").await.unwrap();
        assert!(feed.items.iter().any(|item| item.news == FeedNews::Migrate(order.clone())));
    }
    let id = order.id.to_string();
    let foreign = report(&c, &id, MigrationStage::Active).await;
    assert_eq!(foreign, Err("migration-foreign".to_owned()));
    let nothing = report(&a, &"0".repeat(32), MigrationStage::Active).await;
    assert_eq!(nothing, Err("migration-unknown".to_owned()));
    let stage = || match told(&world, &CentreCommand::Migration { id: order.id }) {
        CentreReply::Migration { stage, .. } => stage,
        other => panic!("{other:?}"),
    };
    report(&a, &id, MigrationStage::Gone).await.unwrap();
    // One that comes late changes nothing.
    report(&b, &id, MigrationStage::Ordered).await.unwrap();
    assert_eq!(stage(), MigrationStage::Gone);
    report(&b, &id, MigrationStage::Active).await.unwrap();
    assert_eq!(stage(), MigrationStage::Active);
    // At its end the owner may move again; so it may when an administrator gave it up.
    let reply = told(&world, &migrate("v1", "b", "a"));
    let CentreReply::Migrating(again) = reply else { panic!("{reply:?}") };
    let cancel = CentreCommand::Cancel { id: again.id, operator: "ann".to_owned() };
    let CentreReply::Migration { stage, refusal: why, .. } = told(&world, &cancel) else {
        panic!()
    };
    assert_eq!((stage, why.as_deref()), (MigrationStage::Refused, Some("operator-cancelled")));
    assert_eq!(refused(&told(&world, &cancel)), "migration-over");
    assert!(matches!(told(&world, &migrate("v1", "b", "a")), CentreReply::Migrating(_)));
    // Whom it does not concern learns nothing of it.
    let feed: Feed = c.get("/v1/feed").await.unwrap();
    assert!(!feed.items.iter().any(|item| matches!(item.news, FeedNews::Migrate(_))));
    // A reader from the future, as after a restored backup, is given the whole picture.
    let whole: Feed = a.get("/v1/feed?after=1000000").await.unwrap();
    assert!(whole.resync);
    let has = |test: fn(&FeedNews) -> bool| whole.items.iter().filter(|i| test(&i.news)).count();
    assert_eq!(has(|news| matches!(news, FeedNews::Crl { .. })), 1);
    assert_eq!(has(|news| matches!(news, FeedNews::Migrate(_))), 1);
    for bad in ["https://a/b:1", "https://a#:1", "https://a b:1", "https://a\\b:1", "https://x@a:1"]
    {
        let bad = Hello { peer_url: bad.to_owned() };
        let outcome = a.post::<_, Welcome>("/v1/services/hello", &bad).await;
        assert_eq!(refusal(outcome), "peer-url-invalid");
    }
    world.end().await;
}
