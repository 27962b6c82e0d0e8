//! A host's trust service.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use model::HostId;
use serve::{fsfile, process::Spawn};

use super::Lab;
use crate::{
    lab::{record::CentreRecord, render},
    output::Failure,
};

impl Lab {
    /// Has it run; its URL and its CA's file.
    pub(super) async fn trust(
        &mut self,
        name: &HostId,
        centre: Option<&CentreRecord>,
    ) -> Result<(String, PathBuf), Failure> {
        let dir = self.layout.trust(name);
        fsfile::create_private_dir(&dir)?;
        let (config, address) = (dir.join("trust.toml"), dir.join("address"));
        let role = format!("trust-{name}");
        // Certificates say where their status is published, and others where they move keys to, so
        // the addresses stay what they were.
        let (listen, peer) = (same_address(&address)?, same_address(&dir.join("peer-address"))?);
        if self.processes.alive(&role).is_none() {
            let agent = self.layout.agent_socket(name);
            let text = render::trust(&dir, (listen, peer), &agent, centre)?;
            fsfile::write_atomic(&config, text.as_bytes(), 0o600)?;
            let process = Spawn::new(&self.programs.trust)
                .arg("--config")
                .arg(&config)
                .log_file(self.layout.log(&role))
                .spawn()?;
            self.remember(&role, process)?;
        }
        self.wait_for(&role, &format!("the trust service of {name}"), || async {
            Ok(answers(listen).await.then_some(()))
        })
        .await?;
        Ok((format!("http://{listen}/xkms"), dir.join("state/ca.pem")))
    }
}

/// The address that was written into `file` before, or a free one.
pub(super) fn same_address(file: &Path) -> Result<SocketAddr, Failure> {
    let before = std::fs::read_to_string(file).ok();
    before.and_then(|text| text.trim().parse().ok()).map_or_else(free_address, Ok)
}

/// An address on loopback that nobody listens on.
fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Whether the service at `address` says that it is well.
async fn answers(address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200 "))
    };
    asked.await.unwrap_or(false)
}
