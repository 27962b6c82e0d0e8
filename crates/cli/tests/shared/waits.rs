//! Orders that are put off, as a client sees them.

use xkms::{
    client::{Client, Exchange, Step},
    message::*,
};

use crate::{
    checks::Checks,
    server::{Ended, Server, result},
    world::{PATIENCE, eventually},
};

impl Server<'_> {
    /// Sends an order of a client that can wait, which must be put off.
    pub fn put_off<'c>(
        &self,
        checks: &mut Checks,
        what: &str,
        client: &'c Client<'c>,
        mut request: Request,
    ) -> Option<Exchange<'c>> {
        request.head.mechanisms = vec![Mechanism::Pending];
        let (waits, seen) = match self.run(client, request) {
            Ok(Ended::Waits(exchange)) => (Some(*exchange), String::new()),
            Ok(Ended::Done(answer)) => (None, result(&Ok(*answer))),
            Err(error) => (None, error.to_string()),
        };
        checks.check(what, waits.is_some(), seen);
        waits
    }

    /// Asks for what was put off; nothing while it waits.
    pub fn poll(&self, exchange: &mut Exchange<'_>) -> Option<Answer> {
        let document = exchange.poll(&self.id()).ok()?;
        let (_, body) = self.post("/xkms", document.as_bytes());
        match exchange.receive(&body, &self.id()) {
            Ok(Step::Done(answer)) => Some(*answer),
            _ => None,
        }
    }

    /// Waits until a registration that was put off is done.
    pub fn carried_out(&self, checks: &mut Checks, what: &str, exchange: &mut Exchange<'_>) {
        let done = eventually(PATIENCE, || self.poll(exchange));
        let good = matches!(&done, Some(Answer { body: AnswerBody::Register(found, _), .. })
            if found.len() == 1);
        checks.check(what, good, done.map(|answer| result(&Ok(answer))).unwrap_or_default());
    }

    /// Asks how many orders of an exchange are pending: one.
    pub fn is_pending(&self, checks: &mut Checks, what: &str, exchange: &Exchange<'_>) {
        let status = exchange.status_request(&self.id()).map(|request| self.ask(request));
        let counts = match &status {
            Some(Ok(Answer { body: AnswerBody::Status(counts), .. })) => format!("{counts:?}"),
            _ => "no answer".to_owned(),
        };
        checks.check(what, counts.contains("pending: Some(1)"), counts);
    }
}
