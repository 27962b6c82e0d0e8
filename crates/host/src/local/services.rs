//! What the agent does for services of its host: asks the authority for their passports, and how
//! other hosts stand.

use axum::extract::{Path, State};
use model::{
    HostId,
    api::service::{Certified, CertifyRequest, HostStanding, Service, ServiceKey},
};
use serve::problem::{Json, Problem};

use super::{Local, problem};
use crate::trouble::Trouble;

/// What was named is nothing.
pub(super) fn unknown(what: &str) -> Problem {
    Problem::refusal("request-invalid", format!("there is no such {what}"))
        .status(http::StatusCode::BAD_REQUEST)
}

/// `POST /v1/services/{service}/certify`.
pub(super) async fn certify(
    State(local): State<Local>,
    Path(service): Path<String>,
    Json(key): Json<ServiceKey>,
) -> Result<Json<Certified>, Problem> {
    let service: Service = service.parse().map_err(|_| unknown("service"))?;
    let session = local.host.link.session().map_err(|trouble| problem(&trouble))?;
    let request = CertifyRequest { service, spki: key.spki };
    let certified = session.client.post("/v1/services/certify", &request).await;
    Ok(Json(certified.map_err(|error| problem(&Trouble::from(error)))?))
}

/// `GET /v1/standing/{host}`.
pub(super) async fn standing(
    State(local): State<Local>,
    Path(host): Path<String>,
) -> Result<Json<HostStanding>, Problem> {
    let host: HostId = host.parse().map_err(|_| unknown("host"))?;
    let session = local.host.link.session().map_err(|trouble| problem(&trouble))?;
    let standing = session.client.get(&format!("/v1/hosts/{host}/standing")).await;
    Ok(Json(standing.map_err(|error| problem(&Trouble::from(error)))?))
}
