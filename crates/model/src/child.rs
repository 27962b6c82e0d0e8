//! The wire between the agent and the processes of one VM, over a unix stream socket: frames of a
//! big-endian 32-bit length and that many bytes of JSON, requests and replies in turn.
//!
//! **Invariant:** a frame is at most [`MAX_FRAME`] bytes; a longer length is refused before
//! anything is allocated for it. Who may speak is the listener's business (peer credentials).

pub mod disk;
pub mod vtpm;

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The longest frame, 4 MiB.
pub const MAX_FRAME: usize = 4 << 20;

/// Memory that a message gets before its length counts, 4 KiB: what most need.
const USUAL: usize = 4 << 10;

/// Why a message could not be sent or received.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream failed, or ended inside a frame.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The content is not the message that was expected.
    #[error("the frame does not hold the expected message")]
    Malformed(#[source] serde_json::Error),
    /// The content, in octets, is not the message that was expected.
    #[error("the frame does not hold the expected octets")]
    Octets,
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
}

/// Sends one message in one write.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Malformed`] if `message` has no JSON form, or the stream's
/// error.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), FrameError> {
    send_frame(to, |frame| serde_json::to_writer(frame, message).map_err(FrameError::Malformed))
}

/// Sends the frame that `fill` fills.
pub(crate) fn send_frame(
    to: &mut impl Write,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    let mut frame = Vec::with_capacity(USUAL);
    frame.extend_from_slice(&[0; 4]);
    fill(&mut frame)?;
    let body = frame.len().saturating_sub(4);
    let length = u32::try_from(body).map_err(|_| FrameError::TooLong(body))?;
    if body > MAX_FRAME {
        return Err(FrameError::TooLong(body));
    }
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    to.write_all(&frame)?;
    to.flush()?;
    Ok(())
}

/// Receives one message; `None` if the stream ended between two frames.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Malformed`], or the stream's error.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    receive_frame(from)?.as_deref().map(read).transpose()
}

/// The message in a frame.
pub(crate) fn read<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(frame).map_err(FrameError::Malformed)
}

/// Receives what is in one frame; `None` if the stream ended between two.
pub(crate) fn receive_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>, FrameError> {
    let mut head = [0; 4];
    let mut have = 0;
    while let Some(rest) = head.get_mut(have..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => have = have.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let announced = u32::from_be_bytes(head);
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    // What is announced costs nothing yet, beyond what most messages need.
    let mut body = Vec::with_capacity(length.min(USUAL));
    let got = from.take(u64::from(announced)).read_to_end(&mut body)?;
    if got < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_round_trips_and_the_end_is_seen() {
        let mut wire = Vec::new();
        send(&mut wire, &disk::Request::Flush {}).unwrap();
        let mut from = wire.as_slice();
        let got: Option<disk::Request> = receive(&mut from).unwrap();
        assert_eq!(got, Some(disk::Request::Flush {}));
        assert!(receive::<disk::Request>(&mut from).unwrap().is_none());
    }

    #[test]
    fn an_overlong_frame_is_refused_before_it_is_read() {
        let wire = u32::MAX.to_be_bytes();
        let got = receive::<disk::Request>(&mut wire.as_slice());
        assert!(matches!(got, Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_frame_cut_short_is_an_error_and_not_the_end() {
        let mut wire = Vec::new();
        send(&mut wire, &disk::Request::Flush {}).unwrap();
        for cut in 1..wire.len() {
            assert!(receive::<disk::Request>(&mut &wire[..cut]).is_err(), "cut at {cut}");
        }
    }
}
