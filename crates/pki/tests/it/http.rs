//! A client for one HTTP exchange on loopback, with faults on demand; journals in memory; child
//! processes that end with the test.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use pki::{HttpAnswer, HttpRequest, Journal, LedgerError, RequestId, Transport, TransportError};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What goes wrong with the next exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody is there.
    NotSent,
    /// The answer is lost on the way.
    Lost,
    /// A bit of the answer's body is turned over, this far from its start.
    Altered(usize),
}

/// Exchanges over loopback.
#[derive(Default)]
pub(crate) struct Loopback {
    tls: Option<Arc<ClientConfig>>,
    /// The answer to the next request to a URL that has this word is lost.
    pub(crate) lose: RefCell<Option<&'static str>>,
    /// The faults to come, by the number of the exchange they hit.
    pub(crate) faults: RefCell<HashMap<usize, Fault>>,
    pub(crate) exchanges: RefCell<usize>,
    /// What was sent, and what came back, each body.
    pub(crate) sent: RefCell<Vec<Vec<u8>>>,
    pub(crate) answers: RefCell<Vec<Vec<u8>>>,
}

impl Loopback {
    /// With TLS to servers below this root (DER).
    pub(crate) fn with_root(root: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.to_vec().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: Some(Arc::new(config)), ..Self::default() }
    }

    /// Makes the exchange that comes after `after` others go wrong.
    pub(crate) fn fail(&self, after: usize, fault: Fault) {
        let at = *self.exchanges.borrow() + after;
        self.faults.borrow_mut().insert(at, fault);
    }

    fn go(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        let (scheme, rest) = request.url.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = host.to_socket_addrs().unwrap().find(|one| one.is_ipv4()).unwrap();
        let not_sent = |error| TransportError::NotSent(Box::new(error));
        let stream = TcpStream::connect_timeout(&address, request.timeout).map_err(not_sent)?;
        stream.set_read_timeout(Some(request.timeout)).unwrap();
        let lost = |error| TransportError::Lost(Box::new(error));
        let head = head(request, host, path);
        if scheme == "https" {
            let name = host.split(':').next().unwrap().to_owned().try_into().unwrap();
            let session = ClientConnection::new(self.tls.clone().unwrap(), name).unwrap();
            converse(StreamOwned::new(session, stream), &head, request).map_err(lost)
        } else {
            converse(stream, &head, request).map_err(lost)
        }
    }
}

fn head(request: &HttpRequest<'_>, host: &str, path: &str) -> String {
    let kind = request.content_type.map(|kind| format!("content-type: {kind}\r\n"));
    format!(
        "{} /{path} HTTP/1.0\r\nhost: {host}\r\nuser-agent: test\r\ncontent-length: {}\r\n{}\r\n",
        request.method.name(),
        request.body.len(),
        kind.unwrap_or_default(),
    )
}

fn converse(
    mut stream: impl Read + Write,
    head: &str,
    request: &HttpRequest<'_>,
) -> std::io::Result<HttpAnswer> {
    stream.write_all(&[head.as_bytes(), request.body].concat())?;
    let mut all = Vec::new();
    let most = u64::try_from(request.most).unwrap() + (64 << 10);
    if let Err(error) = stream.take(most).read_to_end(&mut all) {
        // A server that closes without TLS's farewell.
        if error.kind() != std::io::ErrorKind::UnexpectedEof || all.is_empty() {
            return Err(error);
        }
    }
    let at = all.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.ok_or(std::io::ErrorKind::InvalidData)?;
    let text = String::from_utf8_lossy(&all[..at]).into_owned();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok(HttpAnswer {
        status,
        headers: lines.filter_map(field).collect(),
        body: all[at + 4..].into(),
    })
}

impl Transport for Loopback {
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        let at = self.exchanges.replace_with(|count| *count + 1);
        let fault = self.faults.borrow_mut().remove(&at);
        if fault == Some(Fault::NotSent) {
            return Err(TransportError::NotSent("nobody is there".into()));
        }
        self.sent.borrow_mut().push(request.body.to_vec());
        let mut answer = self.go(request)?;
        self.answers.borrow_mut().push(answer.body.clone());
        let lost = || TransportError::Lost("lost on the way".into());
        if self.lose.borrow().is_some_and(|word| request.url.contains(word)) {
            *self.lose.borrow_mut() = None;
            return Err(lost());
        }
        match fault {
            Some(Fault::Lost) => return Err(lost()),
            Some(Fault::Altered(at)) => answer.body[at] ^= 1,
            Some(Fault::NotSent) | None => {}
        }
        Ok(answer)
    }
}

/// Records in memory, which outlive a provider as a disk outlives a process.
#[derive(Debug, Default)]
pub(crate) struct Records(RefCell<HashMap<RequestId, Vec<u8>>>);

impl Journal for &Records {
    fn load(&self, id: RequestId) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.0.borrow().get(&id).cloned())
    }

    fn save(&self, id: RequestId, record: &[u8]) -> Result<(), LedgerError> {
        self.0.borrow_mut().insert(id, record.to_vec());
        Ok(())
    }
}

/// A child process that is ended with the test.
pub(crate) struct Server(Child);

impl Server {
    /// Starts `command`; what it says on stdout and stderr can be read.
    pub(crate) fn start(command: &mut Command) -> (Self, ChildStdout, ChildStderr) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        (Self(child), stdout, stderr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads up to the line that has `word`, and goes on reading so that the writer never waits.
pub(crate) fn line_with(from: impl Read + Send + 'static, word: &'static str) -> String {
    let (found, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if line.contains(word) {
                let _ = found.send(line);
            }
        }
    });
    wait.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("no line with {word}"))
}

/// Whether there is a program of this name; said aloud if not.
pub(crate) fn there_is(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !there {
        println!("SKIPPED: {test}: there is no {program} (scripts/install-packages.sh test)");
    }
    there
}
