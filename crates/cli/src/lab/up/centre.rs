//! The lab's key-management centre, on its first host.

use model::HostId;
use serve::{fsfile, process::Spawn};

use super::{Lab, trust::same_address};
use crate::{
    lab::{record::CentreRecord, render},
    output::Failure,
};

/// Its role among the lab's processes.
const ROLE: &str = "centre";

impl Lab {
    /// Has it run beside the agent of `host`, which gets it its passport.
    pub(super) async fn centre(&mut self, host: &HostId) -> Result<CentreRecord, Failure> {
        let program = self.programs.centre.clone().ok_or_else(|| {
            Failure::error("vouchsafe-centre is missing", "build it with `cargo build --release`")
        })?;
        let dir = self.layout.centre();
        fsfile::create_private_dir(&dir)?;
        let (config, address) = (dir.join("centre.toml"), dir.join("address"));
        let listen = same_address(&address)?;
        if self.processes.alive(ROLE).is_none() {
            let text = render::centre(&self.layout, host, listen)?;
            fsfile::write_atomic(&config, text.as_bytes(), 0o600)?;
            fsfile::remove(&address)?;
            let process = Spawn::new(&program)
                .arg("--config")
                .arg(&config)
                .log_file(self.layout.log(ROLE))
                .spawn()?;
            self.remember(ROLE, process)?;
        }
        self.wait_for(ROLE, "the key-management centre", || async {
            Ok(address.exists().then_some(()))
        })
        .await?;
        let pid = self.processes.alive(ROLE).map_or(0, |process| process.pid);
        Ok(CentreRecord { url: format!("https://{listen}"), dir, pid })
    }
}
