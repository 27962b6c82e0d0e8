//! The source's part: says what is to be said, hears the answer, and again until the keys are at
//! one place for good.

use std::{sync::Arc, time::Duration};

use model::{
    api::service::Service,
    migration::{Body, Rejection, Signed},
};
use passport::{Current, Passport};
use pki::Wanted;
use serve::{
    client::{CallError, ClientLimits},
    exit::chain,
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::sync::Notify;

use super::{
    BODY,
    statement::{self, StatementRejection},
};
use crate::keeper::{Keeper, Outgoing, Why};

/// How long to wait before another try.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a target may take for one answer: it stores the parcel.
const ANSWER: Duration = Duration::from_secs(60);

/// Why a migration does not go on now. It is tried again.
#[derive(Debug, Error)]
enum Stop {
    #[error("the target did not answer")]
    Call(#[from] CallError),
    #[error("the target cannot be reached like this")]
    Client(#[from] serve::client::ClientError),
    #[error("the target's answer is not believed")]
    Answer(#[from] StatementRejection),
    #[error(transparent)]
    Key(#[from] serve::keys::KeyError),
    #[error(transparent)]
    Keeper(#[from] Why),
    #[error("nobody can say whether the target is to be trusted")]
    Standing,
    #[error("this service has no passport")]
    Passport,
    #[error("the keeper ended")]
    Ended,
}

/// Moves keys until `shutdown`.
pub(super) async fn run(
    keeper: Arc<Keeper>,
    passport: Passport,
    wanted: Arc<Notify>,
    shutdown: Shutdown,
) {
    loop {
        let leaving = blocking(&keeper, |keeper| keeper.leaving().map_err(Why::from)).await;
        // Whatever begins is told: as long as nothing is under way, nothing is looked for.
        let again = leaving.as_ref().map_or(true, |owners| !owners.is_empty());
        match leaving {
            Ok(owners) => {
                for owner in owners {
                    if let Err(stop) = go_on(&keeper, &passport, &owner).await {
                        tracing::warn!(owner, error = chain(&stop), "a migration waits");
                    }
                }
            }
            Err(stop) => {
                tracing::error!(error = chain(&stop), "which keys are to move cannot be read");
            }
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = wanted.notified() => {}
            () = tokio::time::sleep(AGAIN), if again => {}
        }
    }
}

async fn blocking<T: Send + 'static>(
    keeper: &Arc<Keeper>,
    run: impl FnOnce(&Keeper) -> Result<T, Why> + Send + 'static,
) -> Result<T, Stop> {
    let keeper = Arc::clone(keeper);
    match tokio::task::spawn_blocking(move || run(&keeper)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Stop::Ended),
    }
}

/// As far as it goes.
async fn go_on(keeper: &Arc<Keeper>, passport: &Passport, owner: &str) -> Result<(), Stop> {
    loop {
        let current = passport.current().ok_or(Stop::Passport)?;
        let (own, whose) = (statement::own(&current), owner.to_owned());
        let next = blocking(keeper, move |keeper| keeper.outgoing(&whose, &own)).await?;
        let Some(next) = next else { return Ok(()) };
        // Keys are shown to nobody who is not trusted at this very moment.
        if matches!(next.statement.body, Body::Parcel { .. }) {
            match statement::trusted(passport, &next.peer).await {
                Some(true) => {}
                Some(false) => {
                    refuse(keeper, owner, &next, Rejection::PeerUntrusted).await?;
                    continue;
                }
                None => return Err(Stop::Standing),
            }
        }
        let answer = match say(passport, &current, &next).await {
            Ok(answer) => answer,
            Err(Stop::Call(error)) => {
                let known = match error.refusal() {
                    Some("epoch-ahead") => Some(Rejection::MigrationStale),
                    name => name.and_then(Rejection::from_code),
                };
                let early = matches!(next.statement.body, Body::Offer | Body::Parcel { .. });
                match known.filter(|_| early) {
                    Some(why) => {
                        refuse(keeper, owner, &next, why).await?;
                        continue;
                    }
                    None => return Err(Stop::Call(error)),
                }
            }
            Err(stop) => return Err(stop),
        };
        let host = &next.peer;
        let said = statement::verify(&answer, host, &current.trusted, passport.now())?;
        let trusted = if matches!(said.body, Body::Ready { .. } | Body::Receipt { .. }) {
            statement::trusted(passport, host).await.ok_or(Stop::Standing)?
        } else {
            true
        };
        let whose = owner.to_owned();
        blocking(keeper, move |keeper| keeper.heard(&whose, &said, trusted)).await?;
    }
}

async fn refuse(
    keeper: &Arc<Keeper>,
    owner: &str,
    next: &Outgoing,
    why: Rejection,
) -> Result<(), Stop> {
    let (whose, id) = (owner.to_owned(), next.statement.id);
    blocking(keeper, move |keeper| keeper.heard_refusal(&whose, id, why)).await
}

async fn say(passport: &Passport, current: &Current, next: &Outgoing) -> Result<Signed, Stop> {
    let wanted = Wanted::of(Service::Trust, next.peer.clone());
    let limits =
        ClientLimits { attempts: 1, answer: ANSWER, body: BODY, ..ClientLimits::default() };
    let client = passport.client(current, &next.url, wanted, limits)?;
    let signed = statement::sign(current, &next.statement)?;
    Ok(client.post("/v1/migrations", &signed).await?)
}
