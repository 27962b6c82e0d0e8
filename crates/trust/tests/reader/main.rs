//! The trust service as two processes, asked as strangers ask it: over TLS, and what it refuses
//! before anything reaches the keeper.

#[cfg(test)]
mod anchor;
#[cfg(test)]
#[path = "../../../cli/tests/shared/anchored.rs"]
mod anchored;
#[cfg(test)]
mod clock;
#[cfg(test)]
#[path = "../../../token/tests/it/hsm.rs"]
mod hsm;
#[cfg(test)]
mod service;
#[cfg(test)]
mod token;

#[cfg(test)]
mod tests {
    use model::keys::Query;
    use serve::problem::Problem;
    use xkms::{
        client::{Client, Exchange, ServiceTrust, Step},
        dsig::SignaturePolicy,
        message::{KeyInfo, Minor, QueryKeyBinding, Request, RequestBody, RequestHead},
        soap::Version,
    };

    use super::service::Service;

    /// What a Validate that nobody signed is answered: its result's minor code.
    async fn unsigned(service: &Service, trust: ServiceTrust) -> Option<Minor> {
        let client = Client {
            service: service.url("/xkms"),
            version: Version::V12,
            signer: None,
            trust,
            signatures: SignaturePolicy::default(),
        };
        let mut query = QueryKeyBinding::default();
        query.binding.key_info = Some(KeyInfo::named("nobody"));
        let head = RequestHead::new("I1", &client.service);
        let request = Request { head, body: RequestBody::Validate(query) };
        let (mut exchange, document) = Exchange::begin(&client, request).unwrap();
        let answer = service.post("/xkms", "application/soap+xml", document.into_bytes()).await;
        assert_eq!(answer.status, 200);
        match exchange.receive(&answer.body, "I2").unwrap() {
            Step::Done(answer) => answer.head.minor,
            other @ (Step::Send(_) | Step::Wait) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_reader_answers_over_tls_and_only_over_tls() {
        let service = Service::start(true, true).await;
        let ca = service.get("/ca.pem").await;
        assert_eq!(ca.status, 200);
        assert!(ca.body.starts_with(b"-----BEGIN CERTIFICATE-----"));
        let minor = unsigned(&service, ServiceTrust::UnsignedAnswersAccepted).await;
        assert_eq!(minor, Some(Minor::NoMatch));
        let query = serde_json::to_vec(&Query { limit: 1, ..Query::default() }).unwrap();
        let refused = service.post("/v1/keys/validate", "application/json", query).await;
        let problem: Problem = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(problem.name, "service-too-many");
        assert!(service.without_tls("/ca.pem").await.is_err());
    }

    #[tokio::test]
    async fn questions_that_nobody_signed_are_refused_by_name_and_audited() {
        let mut service = Service::start(false, false).await;
        let query = serde_json::to_vec(&Query { limit: 1, ..Query::default() }).unwrap();
        for path in ["/v1/keys/locate", "/v1/keys/validate"] {
            let answer = service.post(path, "application/json", query.clone()).await;
            let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, problem.name.as_str()), (403, "queries-closed"));
        }
        let minor = unsigned(&service, ServiceTrust::UnsignedAnswersAccepted).await;
        assert_eq!(minor, Some(Minor::NoAuthentication));
        service.stop();
        let audited = service.audited();
        assert_eq!(audited.matches("queries-closed").count(), 2, "{audited}");
        assert_eq!(audited.matches("signature-missing").count(), 1, "{audited}");
    }
}
