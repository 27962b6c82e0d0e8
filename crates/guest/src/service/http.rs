//! HTTP/1.1 as far as a client of the trust service needs it: one POST at a time on a connection that
//! stays open; answers with a length, bounded.

use std::io::{self, Read, Write};

use thiserror::Error;

/// Longest head of an answer, bytes.
const HEAD: usize = 16 << 10;

/// Longest body of an answer, bytes.
const BODY: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The stream.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// What came is no answer.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// Longer than is read.
    #[error("the answer is too long")]
    TooLong,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Posts `body` and reads the answer.
///
/// # Errors
/// [`HttpError`]; the stream is not to be used after one.
pub fn post(
    stream: &mut (impl Read + Write),
    host: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Result<HttpAnswer, HttpError> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    stream.flush()?;
    read(stream)
}

/// Reads one answer.
///
/// # Errors
/// [`HttpError`].
pub fn read(stream: &mut impl Read) -> Result<HttpAnswer, HttpError> {
    let mut held = Vec::new();
    let end = loop {
        if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if held.len() > HEAD {
            return Err(HttpError::TooLong);
        }
        more(stream, &mut held, 4096)?;
    };
    let head = held.get(..end).and_then(|head| std::str::from_utf8(head).ok());
    let (status, length) = head.and_then(parse).ok_or(HttpError::Malformed("its head"))?;
    if length > BODY {
        return Err(HttpError::TooLong);
    }
    let mut body = held.split_off(end.saturating_add(4).min(held.len()));
    while body.len() < length {
        let missing = length.saturating_sub(body.len());
        more(stream, &mut body, missing.min(64 << 10))?;
    }
    if body.len() > length {
        return Err(HttpError::Malformed("it is longer than it says"));
    }
    Ok(HttpAnswer { status, body })
}

fn more(stream: &mut impl Read, held: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut buffer = vec![0; most];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                held.extend_from_slice(buffer.get(..count).unwrap_or_default());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Status and length of the body.
fn parse(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.split("\r\n");
    let first = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let status: u16 = first.get(..3)?.parse().ok()?;
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            // Said twice, it would depend on the reader which one counts.
            let value: usize = value.trim().parse().ok()?;
            if length.replace(value).is_some() {
                return None;
            }
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some((status, length?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<HttpAnswer, HttpError> {
        read(&mut text.as_bytes())
    }

    #[test]
    fn an_answer_has_a_status_and_exactly_its_length() {
        let good = answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nx: y\r\n\r\nno").unwrap();
        assert_eq!(good, HttpAnswer { status: 403, body: b"no".to_vec() });
        for bad in [
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\na",
            "HTTP/1.1 2\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(matches!(answer(bad), Err(HttpError::Malformed(_))), "{bad}");
        }
        assert!(matches!(answer("HTTP/1.1 200 OK\r\n"), Err(HttpError::Io(_))));
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
        assert!(matches!(answer(long), Err(HttpError::TooLong)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&mut bytes.as_slice());
        }
    }
}
