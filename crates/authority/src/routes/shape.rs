//! What a request or an answer looks like, for the OpenAPI document.

use std::fmt;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Ref, RefOr, Schema},
};

/// A schema and everything that it refers to.
#[derive(Clone)]
pub(crate) struct Shape {
    /// The schema, by reference if it has a name.
    pub(crate) schema: RefOr<Schema>,
    /// Named schemas.
    pub(crate) named: Vec<(String, RefOr<Schema>)>,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shape({} named)", self.named.len())
    }
}

impl Shape {
    /// The shape of a type of the API.
    pub(crate) fn of<T: ToSchema>() -> Self {
        let mut named = Vec::new();
        T::schemas(&mut named);
        named.push((T::name().into_owned(), T::schema()));
        Self { schema: RefOr::Ref(Ref::from_schema_name(T::name())), named }
    }

    /// A list of them.
    pub(crate) fn list<T: ToSchema>() -> Self {
        let one = Self::of::<T>();
        let list = ArrayBuilder::new().items(one.schema).build();
        Self { schema: RefOr::T(Schema::Array(list)), named: one.named }
    }

    /// JSON without a schema of ours.
    pub(crate) fn any() -> Self {
        Self { schema: serde_json::Value::schema(), named: Vec::new() }
    }
}
