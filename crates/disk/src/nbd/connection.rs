//! One connection: negotiation, then transmission.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::{
    Export, Negotiation, Outcome, Progress, Rejection,
    negotiate::Agreed,
    received::Received,
    transmission::{self, Service},
};

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client left, or the server is stopping.
    Closed,
    /// The client broke the protocol.
    Rejected(Rejection),
    /// The stream failed.
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Rejection> for End {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Serves `stream` until it ends.
pub(super) fn serve(
    stream: &UnixStream,
    export: &Export,
    patience: Duration,
    service: &Service,
) -> End {
    let run = || -> Result<(), End> {
        let mut received = Received::new();
        let agreed = negotiate(stream, export.clone(), patience, &mut received)?;
        transmission::run(stream, agreed, service, &mut received)
    };
    run().err().unwrap_or(End::Closed)
}

fn negotiate(
    mut stream: &UnixStream,
    export: Export,
    patience: Duration,
    received: &mut Received,
) -> Result<Agreed, End> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut out = Vec::new();
    let mut negotiation = Negotiation::begin(export, &mut out);
    loop {
        let progress = negotiation.advance(received.waiting(), &mut out);
        if !matches!(progress, Ok(Progress::Consumed(_))) && !out.is_empty() {
            stream.write_all(&out)?;
            out.clear();
        }
        match progress? {
            Progress::Consumed(count) => received.consume(count),
            Progress::NeedMore => match received.receive(stream, 1 << 16) {
                Err(End::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Rejection::NegotiationTimeout.into());
                }
                other => other?,
            },
            Progress::Done(_, Outcome::Ended) => return Err(End::Closed),
            Progress::Done(count, Outcome::Transmission(agreed)) => {
                received.consume(count);
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                return Ok(agreed);
            }
        }
    }
}
