//! The counters that services of this host anchor their stores in.

use axum::extract::{Path, State};
use model::{
    Secret,
    agent::{CounterAdvance, CounterValue, RefusedStore},
    api::service::Service,
};
use serve::problem::{Json, Problem};

use super::{Local, problem, services::unknown};
use crate::{anchors::services::name, trouble::Trouble};

/// The counter's name in the table.
fn named(service: &str, store: &str) -> Result<String, Problem> {
    let service: Service = service.parse().map_err(|_| unknown("service"))?;
    let mut id = [0; 16];
    hex::decode_to_slice(store, &mut id).map_err(|_| unknown("store"))?;
    Ok(name(service, &id))
}

/// The table's key, and the counter's name in the table.
async fn counter(
    local: &Local,
    (service, store): (String, String),
) -> Result<(Secret<Vec<u8>>, String), Problem> {
    let name = named(&service, &store)?;
    let key = local.host.guard.host_key().await.map_err(|trouble| problem(&trouble))?;
    Ok((key, name))
}

fn answer(count: Result<u64, Trouble>) -> Result<Json<CounterValue>, Problem> {
    Ok(Json(CounterValue { count: count.map_err(|trouble| problem(&trouble))? }))
}

/// `POST /v1/counters/{service}/{store}/begin`.
pub(super) async fn begin(
    State(local): State<Local>,
    Path(of): Path<(String, String)>,
) -> Result<Json<CounterValue>, Problem> {
    let (key, name) = counter(&local, of).await?;
    answer(local.host.anchors.begin_store(&key, &name).await)
}

/// `GET /v1/counters/{service}/{store}`.
pub(super) async fn read(
    State(local): State<Local>,
    Path(of): Path<(String, String)>,
) -> Result<Json<CounterValue>, Problem> {
    let (key, name) = counter(&local, of).await?;
    answer(local.host.anchors.count(&key, &name).await)
}

/// `POST /v1/counters/{service}/{store}/advance`.
pub(super) async fn advance(
    State(local): State<Local>,
    Path(of): Path<(String, String)>,
    Json(asked): Json<CounterAdvance>,
) -> Result<Json<CounterValue>, Problem> {
    let (key, name) = counter(&local, of).await?;
    answer(local.host.anchors.advance_store(&key, &name, asked.from).await)
}

/// `POST /v1/counters/{service}/{store}/refused`.
pub(super) async fn refused(
    State(local): State<Local>,
    Path((service, store)): Path<(String, String)>,
    Json(refused): Json<RefusedStore>,
) -> Result<Json<()>, Problem> {
    let name = named(&service, &store)?;
    let RefusedStore { refused, detail } = refused;
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if refused.is_empty() || refused.len() > 64 || !refused.chars().all(kebab) {
        return Err(unknown("refusal"));
    }
    let (at, detail) = (local.host.clock.unix_ms(), format!("{name}: {detail}"));
    local.host.spool.add(at, None, "service-store", Some(&refused), &detail);
    Ok(Json(()))
}
