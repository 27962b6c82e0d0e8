//! The control socket: the agent asks how the volume stands, flushes it, has its data sealed under
//! a fresh key, ends the process.

use std::{os::unix::net::UnixListener, sync::Arc};

use disk::{nbd::UnixSocket, vault::VaultVolume};
use model::{
    Digest,
    child::{
        FrameError,
        disk::{PROTOCOL, Reply, Request, Status},
    },
};
use serve::{control::Service, exit::chain};

use crate::{export::Export, keys::Keys};

/// The export as the agent sees it.
pub(crate) struct Control {
    pub(crate) server: Arc<Export>,
    /// Those of a vault.
    pub(crate) keys: Option<Keys>,
    pub(crate) socket: UnixSocket,
}

impl Service for Control {
    type Request = Request;
    type Reply = Reply;

    fn listener(&self) -> &UnixListener {
        &self.socket.listener
    }

    fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Status {} => Reply::Status(Box::new(status(&self.server, self.keys.as_ref()))),
            Request::Flush {} => match self.server.volume().flush() {
                Ok(()) => Reply::Flushed {},
                Err(error) => failed("flush-failed", error.to_string()),
            },
            Request::Advance { count } => advance(self.keys.as_ref().map(Keys::volume), count),
            Request::Rekey { epoch } => match &self.keys {
                Some(keys) => keys.rekey(epoch),
                None => failed("not-vault", "only a vault volume can be sealed anew".to_owned()),
            },
            Request::Shutdown {} => Reply::ShuttingDown { counters: self.server.counters() },
        }
    }

    fn malformed(&self, error: &FrameError) -> Reply {
        failed("malformed-request", chain(error))
    }

    fn ends(request: &Request) -> bool {
        matches!(request, Request::Shutdown {})
    }
}

pub(crate) fn failed(code: &str, detail: String) -> Reply {
    Reply::Failed { code: code.to_owned(), detail }
}

fn advance(vault: Option<&VaultVolume>, count: u64) -> Reply {
    let Some(vault) = vault else {
        return failed("no-anchor", "only a vault volume has an anchor count".to_owned());
    };
    match vault.advance(count) {
        Ok(head) => Reply::Advanced { count: head.anchor_count, head: Digest::sha256(head.digest) },
        Err(error) => failed("advance-failed", error.to_string()),
    }
}

fn status(server: &Export, keys: Option<&Keys>) -> Status {
    let volume = server.volume();
    Status {
        protocol: PROTOCOL,
        pid: std::process::id(),
        format: volume.format().to_owned(),
        size: volume.size(),
        sector_size: volume.sector_size(),
        read_only: volume.read_only(),
        header_damaged: volume.header_damage().map(str::to_owned),
        kmi: volume.kmi().cloned(),
        flush_failed: volume.flush_failed(),
        anchor_count: keys.map(|keys| keys.volume().head().anchor_count),
        epoch: keys.map(|keys| keys.volume().epoch()),
        rekeying: keys.and_then(Keys::rekeying),
        damage: server.damage(),
        counters: server.counters(),
    }
}
