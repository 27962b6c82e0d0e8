//! A bar on stderr for work of known length.

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Printer;

/// A bar over `total` bytes; hidden when stderr is no terminal or JSON was asked for.
pub(super) fn bar(printer: Printer, what: &'static str, total: u64) -> ProgressBar {
    if printer.is_json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
