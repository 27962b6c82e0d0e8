//! The words that every part of Vouchsafe shares: identifiers, digests, nonces, key-management
//! information, the VM specification, and the two wires between processes ([`api`] over HTTPS,
//! [`child`] between the agent and the processes of one VM).
//!
//! **Invariant:** nothing here does I/O, cryptography or knows a clock; every value that can be
//! malformed is parsed on entry and cannot exist in a malformed state.

pub mod agent;
pub mod anchor;
pub mod api;
pub mod audit;
pub mod banks;
pub mod centre;
pub mod child;
pub mod digest;
pub mod guest;
pub mod id;
pub mod keys;
pub mod kmi;
pub mod migration;
pub mod port;
pub mod secret;

pub use audit::{AuditEntry, AuditEvent, Outcome};
pub use banks::{BanksError, PcrBanks};
pub use digest::{Digest, HashAlg, Nonce};
pub use id::{Domain, GrantId, HostId, MigrationId, NameError, OperationId, OrderId, Tenant, VmId};
pub use kmi::{Epoch, Guard, Incarnation, KeyOrigin, Kmi, KmiOrigin};
pub use secret::Secret;
