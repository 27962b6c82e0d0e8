//! What both benches of the four layers are made of: one lab, one PKI behind a relay, clients of both
//! kinds, and figures.

pub mod clients;
mod cmp;
pub mod der;
#[path = "../../tests/shared/dice.rs"]
pub mod dice;
pub mod figures;
pub mod lab;
pub mod provider;
pub mod relay;
#[path = "../../tests/shared/world.rs"]
pub mod world;
