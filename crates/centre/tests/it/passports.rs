//! Who is served: trust services with a passport in force, each other by its name.

use std::time::Duration;

use model::{
    api::service::Service,
    centre::{CentreCommand, CentreReply, Feed},
};
use passport::rejection;
use serve::{
    client::{CallError, Client, ClientLimits},
    clock::SystemClock,
};

use crate::support::{Authority, OWN, World};

fn name_of(outcome: Result<Feed, CallError>) -> String {
    let error = outcome.unwrap_err();
    error.refusal().map(str::to_owned).unwrap_or_else(|| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trust_service_with_a_passport_in_force_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let authority = &world.authority;
    let asks = |client: Client| async move { client.get::<Feed>("/v1/feed").await };
    assert!(asks(world.trust("a").await).await.is_ok());
    let centre = authority.passport(Service::Centre, "a");
    let other = authority.client(&world.url, &centre).await;
    assert_eq!(name_of(asks(other).await), "passport-wrong-service");
    let short = authority.passport_for(Service::Trust, "a", Duration::from_secs(1));
    let expired = authority.client(&world.url, &short).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(name_of(asks(expired).await), "passport-expired");
    // Without any. (The address is not what a client goes by; here one trusts the test's CA.)
    let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
    let anchors = [authority.0.certificate().to_vec()];
    let url = world.url.replace("127.0.0.1", "localhost");
    let bare = Client::https(&url, &anchors, None, SystemClock::shared(), limits).unwrap();
    // Either the centre has no such name, or it says that the passport is missing.
    assert!(asks(bare).await.is_err());
    // Another authority's service does not take this centre for one.
    let stranger = Authority::new();
    let error = asks(stranger.trust(&world.url, "a").await).await.unwrap_err();
    assert_eq!(rejection(&error).map(|one| one.code()), Some("passport-foreign"));
    let CentreReply::AuditExported { directory, .. } =
        world.centre.administer(CentreCommand::ExportAudit)
    else {
        panic!("no log")
    };
    let log = std::fs::read_to_string(format!("{directory}/audit.jsonl")).unwrap();
    for name in ["passport-wrong-service", "passport-expired"] {
        assert!(log.contains(&format!("\"refused\":\"{name}\"")), "{name} is not in the log");
    }
    world.end().await;
}
