//! QEMU's machine protocol (QMP): one connection, commands answered in any order, events on the
//! side. JSON lines over a unix stream socket.
//!
//! ```text
//! connect -> greeting {"QMP": ..} -> qmp_capabilities -> commands and events until the stream ends
//! ```
//!
//! **Invariants:** a line is at most [`MAX_LINE`] bytes; a command is answered within its timeout or
//! counts as failed; when the stream ends, every command under way fails and the events end.
//! Deliberately absent: out-of-band commands, passing descriptors.

mod wire;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::timeout,
};

pub(crate) use self::wire::{Event, RunState};
use self::wire::{Incoming, command_line};

/// The longest line, 4 MiB: the answer to the largest read of the console, with room.
pub(crate) const MAX_LINE: usize = 4 << 20;

/// How many events may wait to be taken; QEMU is not read further until there is room.
const EVENT_QUEUE: usize = 256;

/// Why a QMP command has no result.
#[derive(Debug, Error)]
pub(crate) enum QmpError {
    /// The socket cannot be reached.
    #[error("cannot connect to QEMU's control socket")]
    Connect(#[source] std::io::Error),
    /// The stream has ended: QEMU is gone or has dropped us.
    #[error("QEMU's control connection has ended")]
    Closed,
    /// No answer in time.
    #[error("QEMU did not answer `{0}` in time")]
    Timeout(String),
    /// What came is not QMP.
    #[error("QEMU's control connection does not speak QMP")]
    Malformed,
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        description: String,
    },
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// A connection to a QEMU. Clones share it; it closes when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Qmp(Arc<Connection>);

/// A connection that is not kept open by this.
#[derive(Clone, Debug)]
pub(crate) struct WeakQmp(Weak<Connection>);

impl WeakQmp {
    /// The connection, if somebody still holds it.
    pub(crate) fn upgrade(&self) -> Option<Qmp> {
        self.0.upgrade().map(Qmp)
    }
}

#[derive(Debug)]
struct Connection {
    write: AsyncMutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    patience: Duration,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects and leaves the negotiation mode. `patience` bounds the connecting and every command.
    ///
    /// # Errors
    /// [`QmpError`].
    pub(crate) async fn connect(
        socket: &Path,
        patience: Duration,
    ) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let stream = UnixStream::connect(socket).await.map_err(QmpError::Connect)?;
        Self::over(stream, patience).await
    }

    /// As [`Self::connect`], over a stream that is there.
    pub(crate) async fn over(
        stream: UnixStream,
        patience: Duration,
    ) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let (read, write) = stream.into_split();
        let mut lines = Lines { from: BufReader::new(read) };
        let greeting = timeout(patience, lines.next())
            .await
            .map_err(|_| QmpError::Timeout("greeting".to_owned()))??;
        if !matches!(greeting, Incoming::Greeting) {
            return Err(QmpError::Malformed);
        }
        let waiting = Waiting::default();
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let reader = tokio::spawn(read_on(lines, Arc::clone(&waiting), events));
        let (write, next) = (AsyncMutex::new(write), AtomicU64::new(1));
        let qmp = Self(Arc::new(Connection { write, waiting, next, patience, reader }));
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok((qmp, receiver))
    }

    /// The connection, without keeping it open.
    pub(crate) fn downgrade(&self) -> WeakQmp {
        WeakQmp(Arc::downgrade(&self.0))
    }

    /// Runs one command; `arguments` is an object, or null for none.
    ///
    /// # Errors
    /// [`QmpError`].
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.0.waiting).insert(id, answer);
        let line = command_line(id, command, arguments);
        let result = timeout(self.0.patience, async {
            self.0.write.lock().await.write_all(&line).await.map_err(|_| QmpError::Closed)?;
            answered.await.map_err(|_| QmpError::Closed)
        })
        .await;
        lock(&self.0.waiting).remove(&id);
        match result {
            Err(_elapsed) => Err(QmpError::Timeout(command.to_owned())),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(description))) => {
                Err(QmpError::Refused { command: command.to_owned(), description })
            }
        }
    }

    /// Whether the CPUs run, and if not, why.
    ///
    /// # Errors
    /// [`QmpError`].
    pub(crate) async fn run_state(&self) -> Result<RunState, QmpError> {
        let value = self.execute("query-status", Value::Null).await?;
        RunState::parse(&value).ok_or(QmpError::Malformed)
    }

    /// Takes what a `ringbuf` character device holds, at most `size` bytes; QEMU forgets it.
    ///
    /// # Errors
    /// [`QmpError`].
    pub(crate) async fn take_ring(&self, device: &str, size: u32) -> Result<Vec<u8>, QmpError> {
        use base64::Engine as _;
        let arguments = serde_json::json!({"device": device, "size": size, "format": "base64"});
        let value = self.execute("ringbuf-read", arguments).await?;
        let text = value.as_str().ok_or(QmpError::Malformed)?;
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| QmpError::Malformed)
    }
}

fn lock(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Value, String>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Lines {
    from: BufReader<OwnedReadHalf>,
}

impl Lines {
    async fn next(&mut self) -> Result<Incoming, QmpError> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut bounded = (&mut self.from).take(limit);
        let got = bounded.read_until(b'\n', &mut line).await.map_err(|_| QmpError::Closed)?;
        if got == 0 {
            return Err(QmpError::Closed);
        }
        if line.last() != Some(&b'\n') {
            return Err(QmpError::Malformed);
        }
        Incoming::parse(&line).ok_or(QmpError::Malformed)
    }
}

async fn read_on(mut lines: Lines, waiting: Waiting, events: mpsc::Sender<Event>) {
    loop {
        match lines.next().await {
            Ok(Incoming::Greeting) => {}
            Ok(Incoming::Event(event)) => {
                // Nobody may be interested in events; answers still are wanted.
                let _ = events.send(event).await;
            }
            Ok(Incoming::Answer(id, result)) => {
                if let Some(asker) = lock(&waiting).remove(&id) {
                    let _ = asker.send(result);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "QMP ended");
                // Dropping the senders fails every command under way.
                lock(&waiting).clear();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncBufReadExt as _;

    use super::*;

    /// A peer that greets, then answers each command by what `answer` says of it.
    async fn fake(
        stream: UnixStream,
        answer: impl Fn(&str, &Value) -> Vec<Value> + Send + 'static,
    ) {
        let (read, mut write) = stream.into_split();
        write.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").await.unwrap();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let request: Value = serde_json::from_str(&line).unwrap();
            let command = request["execute"].as_str().unwrap().to_owned();
            for reply in answer(&command, &request["id"]) {
                write.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            }
        }
    }

    fn pair(answer: impl Fn(&str, &Value) -> Vec<Value> + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(fake(theirs, answer));
        ours
    }

    const PATIENCE: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn events_between_a_command_and_its_answer_are_kept_apart() {
        let stream = pair(|command, id| match command {
            "query-status" => vec![
                json!({"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}),
                json!({"return": {"status": "io-error", "running": false}, "id": id}),
            ],
            _ => vec![json!({"return": {}, "id": id})],
        });
        let (qmp, mut events) = Qmp::over(stream, PATIENCE).await.unwrap();
        assert_eq!(qmp.run_state().await.unwrap(), RunState::IoError);
        assert_eq!(events.recv().await.unwrap(), Event::Stop);
    }

    #[tokio::test]
    async fn a_refusal_carries_qemus_words_and_silence_is_a_timeout() {
        let stream = pair(|command, id| match command {
            "device_add" => {
                vec![json!({"error": {"class": "GenericError", "desc": "no bus"}, "id": id})]
            }
            "quit" => vec![],
            _ => vec![json!({"return": {}, "id": id})],
        });
        let (qmp, _events) = Qmp::over(stream, PATIENCE).await.unwrap();
        let refused = qmp.execute("device_add", json!({})).await;
        assert!(
            matches!(refused, Err(QmpError::Refused { description, .. }) if description == "no bus")
        );
        assert!(matches!(qmp.execute("quit", Value::Null).await, Err(QmpError::Timeout(_))));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_fails_commands_and_ends_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            write.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            lines.next_line().await.unwrap();
            write.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
            lines.next_line().await.unwrap();
        });
        let (qmp, mut events) = Qmp::over(ours, Duration::from_secs(5)).await.unwrap();
        assert!(matches!(qmp.execute("cont", Value::Null).await, Err(QmpError::Closed)));
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_greet_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_read, mut write) = theirs.into_split();
        write.write_all(b"HTTP/1.1 400\n").await.unwrap();
        assert!(matches!(Qmp::over(ours, PATIENCE).await, Err(QmpError::Malformed)));
    }
}
