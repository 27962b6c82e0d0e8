//! The OpenAPI document, made from the table of routes. `docs/api/openapi.json` is the committed
//! copy; a test holds them equal.

use http::StatusCode;
use serve::problem::Problem;
use utoipa::openapi::{
    ComponentsBuilder, Content, Info, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr,
    Required, Schema,
    path::{OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    response::ResponseBuilder,
    schema::{ObjectBuilder, Type},
    security::{SecurityRequirement, SecurityScheme},
};

use super::{Route, Who, shape::Shape, table};

const OPERATOR: &str = "operator";
const HOST: &str = "host-session";

/// The document.
pub(crate) fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut named = Shape::of::<Problem>().named;
    for route in table() {
        let method = match route.verb {
            "get" => utoipa::openapi::HttpMethod::Get,
            "put" => utoipa::openapi::HttpMethod::Put,
            "delete" => utoipa::openapi::HttpMethod::Delete,
            _ => utoipa::openapi::HttpMethod::Post,
        };
        named.extend(route.answer.named.iter().cloned());
        named.extend(route.request.iter().flat_map(|shape| shape.named.clone()));
        paths = paths.path(route.path, PathItem::new(method, operation(&route).build()));
    }
    let mut components = ComponentsBuilder::new();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, schema) in named {
        components = components.schema(name, schema);
    }
    let components = components
        .security_scheme(
            OPERATOR,
            SecurityScheme::MutualTls {
                description: Some("an operator's client certificate".to_owned()),
                extensions: None,
                deprecated: None,
            },
        )
        .security_scheme(
            HOST,
            SecurityScheme::MutualTls {
                description: Some(
                    "a host's session certificate, issued with a fresh good verdict".to_owned(),
                ),
                extensions: None,
                deprecated: None,
            },
        );
    let mut info = Info::new("Vouchsafe authority", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Keys are vouchsafed only to machines that can prove themselves. Binary values are \
         standard base64, times Unix milliseconds; unknown fields are refused."
            .to_owned(),
    );
    OpenApiBuilder::new()
        .info(info)
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

/// The document as it is committed and served.
///
/// # Errors
/// Those of the serializer; none is known for this document.
pub(crate) fn text() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&document())?;
    text.push('\n');
    Ok(text)
}

fn operation(route: &Route) -> OperationBuilder {
    let id = format!("{}-{}", route.verb, route.path.trim_start_matches("/v1/"));
    let id = id.replace(['/', '.'], "-").replace(['{', '}'], "");
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(route.summary))
        .response(
            "200",
            ResponseBuilder::new()
                .description("done")
                .content("application/json", Content::new(Some(route.answer.schema.clone())))
                .build(),
        )
        .response("4XX", problem("refused, or the request is not one of these"))
        .response("5XX", problem("could not be done"));
    operation = match route.who {
        Who::Anyone => operation,
        Who::Host => operation.security(SecurityRequirement::new(HOST, Vec::<String>::new())),
        Who::Operator => {
            operation.security(SecurityRequirement::new(OPERATOR, Vec::<String>::new()))
        }
    };
    for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
        let name = name.trim_end_matches('}');
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(plain(Type::String))),
        );
    }
    for (name, meaning) in route.query {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(*name)
                .parameter_in(ParameterIn::Query)
                .description(Some(*meaning))
                .required(Required::False)
                .schema(Some(plain(Type::Integer))),
        );
    }
    match &route.request {
        None => operation,
        Some(shape) => operation.request_body(Some(
            RequestBodyBuilder::new()
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(shape.schema.clone())))
                .build(),
        )),
    }
}

fn plain(kind: Type) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(kind).build().into()
}

fn problem(description: &str) -> utoipa::openapi::Response {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    ResponseBuilder::new()
        .description(description)
        .content(serve::problem::MEDIA_TYPE, Content::new(Some(schema)))
        .build()
}

/// `GET /v1/openapi.json`.
pub(crate) async fn serve_document() -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    match text() {
        Ok(text) => (json, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/openapi.json");

    /// Set `VOUCHSAFE_BLESS=1` to write the document anew after a change of the API.
    #[test]
    fn the_committed_document_is_what_the_routes_say() {
        let text = text().unwrap();
        if std::env::var_os("VOUCHSAFE_BLESS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(COMMITTED).parent().unwrap()).unwrap();
            std::fs::write(COMMITTED, &text).unwrap();
        }
        let committed = std::fs::read_to_string(COMMITTED).unwrap();
        assert!(text == committed, "docs/api/openapi.json is not what the code says");
    }

    #[test]
    fn every_route_is_described_and_named_for_the_audit_log() {
        for route in table() {
            assert!(!route.summary.is_empty(), "{}", route.path);
            assert!(
                route.event.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{}",
                route.event
            );
        }
    }
}
