//! `vouchsafe key grade`, `allow`, `grades`: which of a VM's identities may ask about which.

use model::keys::admin::AdminReply;

use super::unexpected;
use crate::output::{Failure, Printer};

/// Shows what is set of an owner's identities.
pub(super) fn show(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Grades(grades) = reply else { return Err(unexpected(reply)) };
    let mut table = crate::output::table(["IDENTITY", "GRADE"]);
    for (name, grade) in &grades.names {
        table.add_row([name.clone(), grade.to_string()]);
    }
    let allowed = grades.allowed.iter().map(|one| {
        let may = match (one.locate, one.validate) {
            (true, true) => "located and validated",
            (true, false) => "located",
            (false, _) => "validated",
        };
        format!("\nfrom grade {}, keys up to grade {} may be {may}", one.from, one.to)
    });
    printer.result(&grades, &format!("{table}{}", allowed.collect::<String>()))
}
