//! Orders that wait, through the death of whoever has them.

use std::time::Duration;

use xkms::{
    client::{Exchange, Step},
    dsig::{Curve, SigningKey},
    message::*,
    soap::Version,
};

use crate::{
    LAB,
    checks::Checks,
    hybrid::validate,
    life::Registered,
    server::{Ended, Server, result},
    world::{World, eventually, run},
};

const LIMIT: Duration = Duration::from_secs(60);

fn centre(world: &World) -> String {
    let text = std::fs::read_to_string(world.path("processes.json")).unwrap_or_default();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    all["centre"]["pid"].as_u64().unwrap_or(0).to_string()
}

/// Asks for what was put off; nothing while it waits.
fn poll(server: &Server<'_>, exchange: &mut Exchange<'_>) -> Option<Answer> {
    let document = exchange.poll(&server.id()).ok()?;
    let (_, body) = server.post("/xkms", document.as_bytes());
    match exchange.receive(&body, &server.id()) {
        Ok(Step::Done(answer)) => Some(*answer),
        _ => None,
    }
}

/// An order of a client that can wait.
fn order(server: &Server<'_>, name: &str) -> Option<Request> {
    let phrase = server.pass_phrase(name).ok()?;
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    let mut request = server.register(name, &phrase, Some(&key));
    request.head.mechanisms = vec![Mechanism::Pending];
    Some(request)
}

fn done(answer: Option<Answer>) -> (bool, String) {
    let seen = answer.map(Ok);
    let good = matches!(&seen, Some(Ok(Answer { body: AnswerBody::Register(found, _), .. }))
        if found.len() == 1);
    (good, seen.map(|answer| result(&answer)).unwrap_or_default())
}

/// The centre stands still, the trust service is killed and comes back, the centre goes on.
pub fn waits(world: &World, server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let pid = centre(world);
    run("kill", &["-STOP", &pid]);
    let client = server.client(Version::V11, None);
    let Some(request) = order(server, "dave") else { return };
    let mut exchange = match server.run(&client, request) {
        Ok(Ended::Waits(exchange)) => exchange,
        Ok(Ended::Done(answer)) => {
            checks.check("Register: Pending", false, result(&Ok(*answer)));
            return;
        }
        Err(error) => {
            checks.check("Register: Pending", false, error);
            return;
        }
    };
    checks.check("Register of a client that can wait: Pending", true, "");
    let local = |server: &Server<'_>| {
        validate(server, &known.certificate).is_some_and(|(s, _)| s == StatusValue::Valid)
    };
    checks.check("the library answers meanwhile", local(server), "");
    server.signal("-KILL");
    let up = server.up_again();
    checks.check(
        "the killed trust service comes back without the centre",
        up.is_ok(),
        up.err().unwrap_or_default(),
    );
    checks.check("and answers from its library", local(server), "");
    let status = exchange.status_request(&server.id()).map(|request| server.ask(request));
    let pending = matches!(&status, Some(Ok(Answer { body: AnswerBody::Status(counts), .. }))
        if counts.pending == Some(1));
    checks.check("Status: the order is still pending", pending, format!("{status:?}"));
    run("kill", &["-CONT", &pid]);
    let (good, seen) = done(eventually(LIMIT, || poll(server, &mut exchange)));
    checks.check("the centre goes on: the order is carried out", good, seen);
}

/// The centre is killed with an order on its way.
pub fn centre_killed(world: &World, server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    run("kill", &["-KILL", &centre(world)]);
    let client = server.client(Version::V11, None);
    let Some(request) = order(server, "erin") else { return };
    let Ok(Ended::Waits(mut exchange)) = server.run(&client, request) else {
        checks.check("Register while there is no centre: Pending", false, "");
        return;
    };
    checks.check("Register while there is no centre: Pending", true, "");
    let seen = validate(server, &known.certificate);
    let valid = seen.as_ref().is_some_and(|(status, _)| *status == StatusValue::Valid);
    checks.check("the library answers, and says how old it is", valid, format!("{seen:?}"));
    let said = world.lab_up(LAB);
    checks.check("`lab up` starts the centre again", said.code == 0, said.complaint());
    let (good, seen) = done(eventually(LIMIT, || poll(server, &mut exchange)));
    checks.check("the order is carried out", good, seen);
}
