//! What a guest or its QEMU did wrong.

use thiserror::Error;

/// A guest broke the rules of its rings. A bad request is answered with an error where there is a
/// place for an answer; a bad ring stops that queue. Nobody else notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The available index runs ahead of the ring.
    #[error("the available index is {0} entries ahead")]
    AvailIndex(u16),
    /// A chain is longer than its ring, so it goes round.
    #[error("a descriptor chain without end")]
    ChainLoop,
    /// More data than one request may have.
    #[error("a request of {0} bytes")]
    DataTooLong(u64),
    /// A head index that is not in the table.
    #[error("the head index {0} is outside the table")]
    HeadIndex(u16),
    /// The request's header is not there, or short.
    #[error("a request without its header")]
    HeaderMissing,
    /// An indirect table inside an indirect table, of the wrong length, or with a follower.
    #[error("a malformed indirect table")]
    IndirectMalformed,
    /// An address that is not in the guest's memory.
    #[error("the address {0:#x} is outside the guest's memory")]
    OutsideMemory(u64),
    /// Data to be read behind data to be written.
    #[error("a readable descriptor behind a writable one")]
    ReadableBehindWritable,
    /// There is no byte for the status.
    #[error("a request without a place for its status")]
    StatusMissing,
}

impl Fault {
    /// The name, in kebab-case, for machines and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AvailIndex(_) => "vhost-avail-index",
            Self::ChainLoop => "vhost-chain-loop",
            Self::DataTooLong(_) => "vhost-data-too-long",
            Self::HeadIndex(_) => "vhost-head-index",
            Self::HeaderMissing => "vhost-header-missing",
            Self::IndirectMalformed => "vhost-indirect-malformed",
            Self::OutsideMemory(_) => "vhost-outside-memory",
            Self::ReadableBehindWritable => "vhost-readable-behind-writable",
            Self::StatusMissing => "vhost-status-missing",
        }
    }
}

/// A front end broke the protocol of the socket or our limits; its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// Features that were not offered.
    #[error("features {0:#x} that were not offered")]
    FeaturesUnknown(u64),
    /// An in-flight area that does not fit its queues.
    #[error("an in-flight area that does not fit")]
    InflightMalformed,
    /// Memory regions that overlap, are empty, too many, or not as long as they say.
    #[error("malformed memory regions")]
    MemoryMalformed,
    /// A message that makes no sense or came out of order.
    #[error("a malformed message")]
    MessageMalformed,
    /// A queue that does not exist.
    #[error("no queue {0}")]
    QueueUnknown(u32),
    /// A ring of a length that is no power of two, or too long.
    #[error("a ring of {0} entries")]
    RingLength(u32),
    /// A ring that is not in the guest's memory.
    #[error("a ring outside the guest's memory")]
    RingOutsideMemory,
    /// A peer of another user.
    #[error("a peer of another user")]
    WrongUser,
}

impl Rejection {
    /// The name, in kebab-case, for machines and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::FeaturesUnknown(_) => "vhost-features-unknown",
            Self::InflightMalformed => "vhost-inflight-malformed",
            Self::MemoryMalformed => "vhost-memory-malformed",
            Self::MessageMalformed => "vhost-message-malformed",
            Self::QueueUnknown(_) => "vhost-queue-unknown",
            Self::RingLength(_) => "vhost-ring-length",
            Self::RingOutsideMemory => "vhost-ring-outside-memory",
            Self::WrongUser => "wrong-user",
        }
    }
}
