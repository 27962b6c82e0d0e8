//! `lab status`: what runs. Exit status 1 if something of a lab that is up does not.

use std::path::Path;

use serde::Serialize;
use serve::exit::Exit;

use super::{
    layout::Layout,
    record::{LabRecord, Processes},
};
use crate::output::{Failure, Printer};

/// One process.
#[derive(Debug, Serialize)]
struct Line {
    role: String,
    pid: i32,
    alive: bool,
}

/// Prints what runs.
///
/// # Errors
/// [`Failure`] if there is no lab.
pub async fn run(dir: &Path, printer: Printer) -> Result<Exit, Failure> {
    let layout = Layout::existing(dir)?;
    let up = layout.lab_json().exists().then(|| LabRecord::read(&layout)).transpose()?;
    let processes: Vec<Line> = Processes::read(&layout)?
        .0
        .into_iter()
        .map(|(role, process)| Line { role, pid: process.pid, alive: process.is_alive() })
        .collect();
    let well = up.is_some() && processes.iter().all(|line| line.alive);
    let mut text = format!("lab {}: {}", dir.display(), if up.is_some() { "up" } else { "down" });
    for line in &processes {
        let state = if line.alive { "runs" } else { "DEAD" };
        text.push_str(&format!("\n  {:<16} {state} (pid {})", line.role, line.pid));
    }
    if let Some(record) = &up {
        text.push_str(&format!("\n  authority at {}", record.authority.url));
    }
    let shown = serde_json::json!({
        "up": up.is_some(), "healthy": well, "processes": processes, "lab": up,
    });
    printer.result(&shown, &text)?;
    Ok(if well || up.is_none() { Exit::Done } else { Exit::Failed })
}
