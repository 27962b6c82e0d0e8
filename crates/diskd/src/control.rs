//! The control socket: the agent asks how the volume stands, flushes it, ends the process.

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

use crate::export::Export;

/// The export as the agent sees it.
pub(crate) struct Control {
    pub(crate) server: Arc<Export>,
    pub(crate) vault: Option<Arc<VaultVolume>>,
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
            Request::Status {} => {
                Reply::Status(Box::new(status(&self.server, self.vault.as_deref())))
            }
            Request::Flush {} => match self.server.volume().flush() {
                Ok(()) => Reply::Flushed {},
                Err(error) => {
                    Reply::Failed { code: "flush-failed".to_owned(), detail: error.to_string() }
                }
            },
            Request::Advance { count } => advance(self.vault.as_deref(), count),
            Request::Shutdown {} => Reply::ShuttingDown { counters: self.server.counters() },
        }
    }

    fn malformed(&self, error: &FrameError) -> Reply {
        Reply::Failed { code: "malformed-request".to_owned(), detail: chain(error) }
    }

    fn ends(request: &Request) -> bool {
        matches!(request, Request::Shutdown {})
    }
}

fn advance(vault: Option<&VaultVolume>, count: u64) -> Reply {
    let failed = |code: &str, detail: String| Reply::Failed { code: code.to_owned(), detail };
    let Some(vault) = vault else {
        return failed("no-anchor", "only a vault volume has an anchor count".to_owned());
    };
    match vault.advance(count) {
        Ok(head) => Reply::Advanced { count: head.anchor_count, head: Digest::sha256(head.digest) },
        Err(error) => failed("advance-failed", error.to_string()),
    }
}

fn status(server: &Export, vault: Option<&VaultVolume>) -> Status {
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
        anchor_count: vault.map(|vault| vault.head().anchor_count),
        damage: server.damage(),
        counters: server.counters(),
    }
}
