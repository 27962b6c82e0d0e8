//! `vouchsafe-authority init` for a lab.

use std::{path::Path, process::Command};

use crate::output::Failure;

/// Runs it; a second time it changes nothing. The recovery shares of a lab are thrown away: its
/// store is as lasting as its directory.
///
/// # Errors
/// [`Failure`] with what it said.
pub(super) fn authority(program: &Path, config: &Path) -> Result<(), Failure> {
    let output = Command::new(program).arg("init").arg("--config").arg(config).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::error(
        format!("vouchsafe-authority init: {}", said.trim()),
        format!("its configuration: {}", config.display()),
    ))
}
