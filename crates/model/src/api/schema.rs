//! How the words of this crate appear in the OpenAPI document: all are strings on the wire.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::Bytes;
use crate::{Digest, Epoch, GrantId, HostId, Incarnation, MigrationId, Nonce, OperationId, VmId};

fn text(pattern: Option<&str>, description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(pattern)
        .description(Some(description))
        .build()
        .into()
}

fn number(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some(description))
        .build()
        .into()
}

macro_rules! word {
    ($type:ident, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    };
}

const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$";
const ID: &str = "^[0-9a-f]{32}$";

word!(HostId, text(Some(NAME), "name of a host"));
word!(VmId, text(Some(NAME), "name of a VM"));
word!(GrantId, text(Some(ID), "identifier of a grant"));
word!(OperationId, text(Some(ID), "identifier of an operation"));
word!(MigrationId, text(Some(ID), "identifier of a move of an owner's keys"));
word!(Nonce, text(Some("^[0-9a-f]{64}$"), "32 bytes, used once"));
word!(Digest, text(Some("^(sha1|sha256|sha384|sha512):[0-9a-f]+$"), "a digest with its algorithm"));
word!(Bytes, text(None, "bytes in standard base64 with padding"));
word!(Epoch, number("counts the changes of a VM's home"));
word!(Incarnation, number("counts the explicit restores of the authority's store"));
