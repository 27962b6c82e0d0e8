//! The keeper's end of its channels to the reader: a thread for each, a request and its answer in
//! turn, until the reader closes it.

use std::{
    io::{self, BufReader},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
};

use model::keys::rpc::{KeyAnswer, KeyRequest};
use serve::exit::chain;

/// What answers.
pub(super) trait Answers: Send + Sync + 'static {
    /// Answers one request; many threads call it at once.
    fn answer(&self, request: KeyRequest) -> KeyAnswer;
}

/// `count` channels: their threads run, and the reader's ends are returned.
///
/// # Errors
/// What the kernel says.
pub(super) fn open<A: Answers>(keeper: &Arc<A>, count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count)
        .map(|number| {
            let (ours, theirs) = UnixStream::pair()?;
            let keeper = Arc::clone(keeper);
            thread::Builder::new()
                .name(format!("channel-{number}"))
                .spawn(move || converse(ours, &*keeper))?;
            Ok(theirs.into())
        })
        .collect()
}

fn converse(ours: UnixStream, keeper: &impl Answers) {
    let mut requests = BufReader::with_capacity(16 << 10, ours);
    loop {
        let request = match KeyRequest::receive(&mut requests) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(detail = chain(&error), "the reader sent what is no request");
                return;
            }
        };
        let answer = keeper.answer(request);
        if let Err(error) = answer.send(requests.get_mut()) {
            tracing::warn!(detail = chain(&error), "the reader left before its answer");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{child, keys::order::KeyFailure};

    use super::*;

    struct Refuses;

    impl Answers for Refuses {
        fn answer(&self, _: KeyRequest) -> KeyAnswer {
            KeyAnswer::Failed(KeyFailure::Refused)
        }
    }

    #[test]
    fn each_channel_answers_in_turn_and_ends_at_what_is_no_request() {
        let channels = open(&Arc::new(Refuses), 2).unwrap();
        for channel in channels {
            let mut stream = UnixStream::from(channel);
            for _ in 0..3 {
                KeyRequest::Crl.send(&mut stream).unwrap();
                let answer = KeyAnswer::receive(&mut stream).unwrap();
                assert!(matches!(answer, Some(KeyAnswer::Failed(KeyFailure::Refused))));
            }
            child::send(&mut stream, &"no request").unwrap();
            assert!(KeyAnswer::receive(&mut stream).unwrap().is_none());
        }
    }
}
