//! The OpenAPI document of the JSON interface. `docs/api/trust.json` is the committed copy; a test
//! holds them equal.

use model::keys::{Found, Query};
use serve::problem::{MEDIA_TYPE, Problem};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, Content, HttpMethod, Info, OpenApi, OpenApiBuilder, PathItem,
        PathsBuilder, Ref, RefOr, Required, Schema, path::OperationBuilder,
        request_body::RequestBodyBuilder, response::ResponseBuilder,
    },
};

/// Finds keys, vouching for nothing.
pub(super) const LOCATE: &str = "/v1/keys/locate";
/// Finds keys and says what is known of them.
pub(super) const VALIDATE: &str = "/v1/keys/validate";

fn schema<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

fn named<T: ToSchema + PartialSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    T::schemas(all);
    all.push((T::name().into_owned(), T::schema()));
}

fn question(id: &str, summary: &str) -> PathItem {
    let content = |schema| Content::new(Some(schema));
    let problem = |description: &str| {
        let builder = ResponseBuilder::new().description(description);
        builder.content(MEDIA_TYPE, content(schema::<Problem>())).build()
    };
    let request = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", content(schema::<Query>()))
        .build();
    let answer = ResponseBuilder::new()
        .description("done")
        .content("application/json", content(schema::<Found>()))
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .request_body(Some(request))
        .response("200", answer)
        .response("4XX", problem("refused, or the request is not one of these"))
        .response("5XX", problem("could not be done"));
    PathItem::new(HttpMethod::Post, operation.build())
}

/// The document.
fn document() -> OpenApi {
    let mut all = Vec::new();
    named::<Problem>(&mut all);
    named::<Query>(&mut all);
    named::<Found>(&mut all);
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let components =
        all.into_iter().fold(ComponentsBuilder::new(), |c, (name, schema)| c.schema(name, schema));
    let paths = PathsBuilder::new()
        .path(LOCATE, question("locate", "Keys like the example; nobody vouches for them"))
        .path(VALIDATE, question("validate", "Keys like the example, and what is known of them"));
    let mut info = Info::new("Vouchsafe trust service", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Questions about keys, without XML. Binary values are standard base64, times Unix \
         milliseconds; unknown fields are refused. Orders (register, reissue, revoke, recover) are \
         given over XKMS, where they are signed."
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
pub(super) fn text() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&document())?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/trust.json");

    /// Set `VOUCHSAFE_BLESS=1` to write the document anew after a change of the interface.
    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let text = text().unwrap();
        if std::env::var_os("VOUCHSAFE_BLESS").is_some() {
            std::fs::write(COMMITTED, &text).unwrap();
        }
        let committed = std::fs::read_to_string(COMMITTED).unwrap();
        assert!(text == committed, "docs/api/trust.json is not what the code says");
    }
}
