//! Every operation of the authority: one table from which the router, the audit log's names and the
//! OpenAPI document are made.

pub(crate) mod admin;
pub(crate) mod anchors;
pub(crate) mod attest;
pub(crate) mod audit;
pub(crate) mod crl;
pub(crate) mod duplications;
pub(crate) mod enrol;
pub(crate) mod gate;
pub(crate) mod grants;
pub(crate) mod guests;
pub(crate) mod hosts;
pub(crate) mod leaving;
pub(crate) mod openapi;
pub(crate) mod orders;
pub(crate) mod reanchor;
pub(crate) mod services;
pub(crate) mod shape;
pub(crate) mod vms;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};

use crate::app::App;
use shape::Shape;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Anyone, within bounds.
    Anyone,
    /// A host with a session.
    Host,
    /// An operator.
    Operator,
}

/// How long a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// `limits.body_bytes`.
    Small,
    /// `limits.evidence_bytes`.
    Evidence,
    /// `limits.guest_evidence_bytes`.
    Guest,
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Route {
    /// Method in lower case, for the document.
    verb: &'static str,
    path: &'static str,
    who: Who,
    event: &'static str,
    summary: &'static str,
    length: Length,
    query: &'static [(&'static str, &'static str)],
    request: Option<Shape>,
    answer: Shape,
    handler: MethodRouter<App>,
}

impl Route {
    fn new(
        (verb, path): (&'static str, &'static str),
        (who, event): (Who, &'static str),
        summary: &'static str,
        answer: Shape,
        handler: MethodRouter<App>,
    ) -> Self {
        let (length, query, request) = (Length::Small, &[][..], None);
        Self { verb, path, who, event, summary, length, query, request, answer, handler }
    }

    /// It takes this body.
    pub(crate) fn takes(mut self, request: Shape) -> Self {
        self.request = Some(request);
        self
    }

    /// Its body may be this long.
    pub(crate) const fn up_to(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// It takes these query parameters: names and what they mean.
    pub(crate) const fn asks(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident = $method:ident;)*) => {
        impl Route {
            $($(#[$doc])*
            pub(crate) fn $verb<H, T>(
                path: &'static str,
                who: (Who, &'static str),
                summary: &'static str,
                answer: Shape,
                handler: H,
            ) -> Self
            where
                H: Handler<T, App>,
                T: 'static,
            {
                let handler = on(MethodFilter::$method, handler);
                Self::new((stringify!($verb), path), who, summary, answer, handler)
            })*
        }
    };
}

verbs! {
    /// A route that ends something.
    delete = DELETE;
    /// A route that reads.
    get = GET;
    /// A route that does something.
    post = POST;
    /// A route that replaces.
    put = PUT;
}

/// All operations.
pub(crate) fn table() -> Vec<Route> {
    let mut routes = enrol::routes();
    routes.extend(attest::routes());
    routes.extend(hosts::routes());
    routes.extend(leaving::routes());
    routes.extend(vms::routes());
    routes.extend(orders::routes());
    routes.extend(reanchor::routes());
    routes.extend(anchors::routes());
    routes.extend(grants::routes());
    routes.extend(guests::routes());
    routes.extend(services::routes());
    routes.extend(duplications::routes());
    routes.extend(crl::routes());
    routes.extend(audit::routes());
    routes.extend(admin::routes());
    routes
}

/// The router of all operations.
pub(crate) fn router(app: &App) -> Router {
    let limits = app.config.limits;
    let mut router = Router::new();
    for route in table() {
        let length = match route.length {
            Length::Small => limits.body_bytes,
            Length::Evidence => limits.evidence_bytes,
            Length::Guest => limits.guest_evidence_bytes,
        };
        let state = gate::Gate { app: app.clone(), event: route.event, length };
        let handler = route
            .handler
            .layer(DefaultBodyLimit::max(length))
            .layer(from_fn_with_state(state, gate::pass));
        router = router.route(route.path, handler);
    }
    router.with_state(app.clone())
}
