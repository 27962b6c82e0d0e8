//! One VM on this host: what it is ([`record`]), what may happen to it ([`machine`], pure), and the
//! task that makes it happen ([`driver`]).

mod apply;
mod apply_order;
pub(crate) mod driver;
pub(crate) mod machine;
pub(crate) mod phase;
pub(crate) mod record;
pub(crate) mod step;
#[cfg(test)]
mod tests;
