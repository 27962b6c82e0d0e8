//! `vouchsafe key import`: bindings from a file, one JSON object a line, to the trust service, some
//! thousand at a time.
//!
//! What is bound already is left as it is, so an import that was cut short is simply repeated.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use model::{
    child::MAX_FRAME,
    keys::{
        admin::{AdminReply, AdminRequest},
        order::Prototype,
    },
};
use serde_json::json;

use super::unexpected;
use crate::output::{Failure, Printer};

/// Bindings sent at once: what a trust service does in a second or two.
const BATCH: usize = 4096;
/// Bytes of lines sent at once; a binding as it is sent is hardly longer than its line.
const BATCH_BYTES: usize = MAX_FRAME / 4;
/// The longest line; one that is longer is cut, and then it is no JSON any more.
const LINE: u64 = 64 << 10;

/// Bindings of consecutive lines.
#[derive(Default)]
struct Batch {
    bindings: Vec<Prototype>,
    /// Their lines, from 1.
    lines: Vec<u64>,
    bytes: usize,
}

/// Sends the bindings in `file`; `-` is standard input.
pub(super) fn run(
    ask: impl Fn(&AdminRequest) -> Result<AdminReply, Failure>,
    file: &Path,
    operator: &str,
    printer: Printer,
) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::error(format!("{}: {error}", file.display()), "");
    let mut input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(named)?))
    };
    let bar = printer.progress("reading");
    let (mut made, mut present, mut number) = (0_u64, 0_u64, 0_u64);
    let mut line = String::new();
    loop {
        let mut batch = Batch::default();
        while batch.bindings.len() < BATCH && batch.bytes < BATCH_BYTES {
            line.clear();
            if input.by_ref().take(LINE).read_line(&mut line).map_err(named)? == 0 {
                break;
            }
            number = number.saturating_add(1);
            batch.add(file, number, line.trim())?;
        }
        if batch.bindings.is_empty() {
            break;
        }
        let Batch { bindings, lines, .. } = batch;
        let reply = ask(&AdminRequest::Import { bindings, operator: operator.to_owned() })?;
        let AdminReply::Imported { made: some, present: others } = reply else {
            return Err(unfit(file, &lines, made, reply));
        };
        made = made.saturating_add(some);
        present = present.saturating_add(others);
        bar.set_message(format!("{number} lines: {made} made, {present} there before"));
    }
    bar.finish_and_clear();
    let shown = json!({"made": made, "present": present});
    printer.result(&shown, &format!("{made} bindings made, {present} were there before"))
}

/// Which line cannot be made, and why.
fn unfit(file: &Path, lines: &[u64], made: u64, reply: AdminReply) -> Failure {
    let AdminReply::Unfit { at, name, detail, hint } = reply else { return unexpected(reply) };
    let line = usize::try_from(at).ok().and_then(|at| lines.get(at));
    let at = line.map_or_else(|| file.display().to_string(), |line| place(file, *line));
    Failure::refused(name, format!("{at}: {detail} ({made} were made before it)"), hint)
}

fn place(file: &Path, line: u64) -> String {
    format!("{}:{line}", file.display())
}

impl Batch {
    fn add(&mut self, file: &Path, number: u64, line: &str) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        let hint = "one JSON object a line: {\"name\": \"web-01\", \"key\": \"<SPKI in base64>\"}";
        let binding = serde_json::from_str(line)
            .map_err(|error| Failure::error(format!("{}: {error}", place(file, number)), hint))?;
        self.bindings.push(binding);
        self.lines.push(number);
        self.bytes = self.bytes.saturating_add(line.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io::Write as _};

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn lines_are_sent_in_batches_and_an_unfit_one_is_named() {
        let text: String =
            (0..5000).map(|n| format!("{{\"name\": \"k{n}\", \"key\": \"AAAA\"}}\n\n")).collect();
        let sent = RefCell::new(Vec::new());
        let ask = |request: &AdminRequest| {
            let AdminRequest::Import { bindings, .. } = request else { panic!("{request:?}") };
            sent.borrow_mut().push(bindings.len());
            if sent.borrow().len() == 1 {
                return Ok(AdminReply::Imported { made: 4096, present: 0 });
            }
            let [name, detail, hint] = ["name-invalid", "no", "do"].map(str::to_owned);
            Ok(AdminReply::Unfit { at: 3, name, detail, hint })
        };
        let file = file(&text);
        let failed = run(ask, file.path(), "anna", Printer::new(true)).unwrap_err();
        assert_eq!(sent.into_inner(), [4096, 904]);
        let Failure::Refused { name, detail, .. } = failed else { panic!("{failed:?}") };
        assert_eq!(name, "name-invalid");
        // Every second line is empty; the fourth of the second batch is the 4100th binding.
        assert!(detail.contains(":8199: no (4096 were made before it)"), "{detail}");
    }

    #[test]
    fn what_is_no_binding_is_refused_with_its_line() {
        let file = file("{\"name\": \"a\"}\n{\"nmae\": \"b\"}\n");
        let ask = |_: &AdminRequest| panic!("nothing is sent");
        let failed = run(ask, file.path(), "anna", Printer::new(true)).unwrap_err();
        let Failure::Error { message, .. } = failed else { panic!("{failed:?}") };
        assert!(message.contains(":2: ") && message.contains("nmae"), "{message}");
    }
}
