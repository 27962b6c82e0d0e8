//! Connections that are kept: what goes over them, what is sent again, and what never is.

use std::{
    cell::Cell,
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use serve::{
    client::{Call, CallError, Client, ClientLimits, Exchange, RawAnswer, RawRequest},
    clock::{Clock as _, SystemClock},
};

/// What the server does with the next request that it reads, on whichever connection.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Answers, and waits for the next one.
    Answers,
    /// The same, and says that it will not wait.
    AnswersForNow,
    /// Answers, and ends the connection without having said so.
    AnswersAndLeaves,
    /// Begins to answer, and ends the connection.
    AnswersHalf,
    /// Ends the connection.
    Leaves,
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n21";
const FOR_NOW: &str = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\n21";
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n21";

/// What it saw: the number of the connection for each request, and the ends that it made.
#[derive(Debug)]
enum Saw {
    Request(usize),
    End,
}

/// Reads a request to its end.
fn read(stream: &mut impl std::io::Read) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).ok()
}

fn converse(
    mut stream: impl std::io::Read + std::io::Write,
    number: usize,
    (script, saw): (&Mutex<Receiver<Does>>, &Sender<Saw>),
) {
    while read(&mut stream).is_some() {
        saw.send(Saw::Request(number)).unwrap();
        let does = script.lock().unwrap().recv().unwrap();
        let words = match does {
            Does::Answers | Does::AnswersAndLeaves => WHOLE,
            Does::AnswersForNow => FOR_NOW,
            Does::AnswersHalf => HALF,
            Does::Leaves => "",
        };
        stream.write_all(words.as_bytes()).unwrap();
        if !matches!(does, Does::Answers | Does::AnswersForNow) {
            drop(stream);
            saw.send(Saw::End).unwrap();
            return;
        }
    }
}

struct Server {
    url: String,
    exchange: Exchange,
    script: Sender<Does>,
    saw: Receiver<Saw>,
    pace: Pace,
}

/// Whether answers came so soon after each other that the moment, in which a connection is good for
/// what may not be repeated, cannot have been over: the machine may stall for longer than that.
#[derive(Default)]
struct Pace(Cell<(Option<Duration>, bool)>);

impl Pace {
    fn answered(&self) {
        let (before, late) = self.0.get();
        let now = SystemClock.monotonic();
        let gap = before.map_or(Duration::ZERO, |before| now - before);
        self.0.set((Some(now), late || gap > Duration::from_millis(900)));
    }

    fn is_late(&self) -> bool {
        self.0.get().1
    }
}

/// How often a test begins anew because the machine stalled.
const TRIES: usize = 50;

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/cmp", listener.local_addr().unwrap());
        let (script, does) = channel();
        let (told, saw) = channel();
        let does = Arc::new(Mutex::new(does));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (does, told) = (Arc::clone(&does), told.clone());
                thread::spawn(move || converse(stream, number, (&does, &told)));
            }
        });
        let exchange = Exchange::new(&[], SystemClock::shared(), Duration::from_secs(120)).unwrap();
        Self { url, exchange, script, saw, pace: Pace::default() }
    }

    /// One exchange; what came of it, and over which connections its request came.
    async fn posts(&self, does: Does) -> (Result<RawAnswer, CallError>, Vec<usize>) {
        self.script.send(does).unwrap();
        let request = RawRequest {
            method: http::Method::POST,
            url: self.url.clone(),
            content_type: Some("text/plain"),
            body: b"body".to_vec(),
            most: 1000,
            within: Duration::from_secs(120),
        };
        let answer = self.exchange.run(request).await;
        self.pace.answered();
        let ends = !matches!(does, Does::Answers | Does::AnswersForNow);
        (answer, seen(&self.saw, ends))
    }
}

/// The requests that came since, and the end of a connection if there is to be one.
fn seen(saw: &Receiver<Saw>, ends: bool) -> Vec<usize> {
    let mut all = Vec::new();
    let mut waits = ends;
    loop {
        let next = match waits {
            true => saw.recv_timeout(Duration::from_secs(120)).ok(),
            // Nothing more is to come; what should not have come would be here soon.
            false => saw.recv_timeout(Duration::from_millis(100)).ok(),
        };
        match next {
            Some(Saw::Request(number)) => all.push(number),
            Some(Saw::End) => waits = false,
            None => return all,
        }
    }
}

fn is_lost(answer: &Result<RawAnswer, CallError>) -> bool {
    matches!(answer, Err(CallError::Interrupted { .. } | CallError::Malformed { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_repeated_goes_over_a_connection_that_was_used_a_moment_ago() {
    for _ in 0..TRIES {
        let server = Server::start();
        let mut all = Vec::new();
        for _ in 0..3 {
            let (answer, over) = server.posts(Does::Answers).await;
            assert_eq!(answer.unwrap().body, b"21");
            all.push(over);
        }
        // Not where the server said that it will not wait, nor when the moment is over.
        all.push(server.posts(Does::AnswersForNow).await.1);
        all.push(server.posts(Does::Answers).await.1);
        if server.pace.is_late() {
            continue;
        }
        assert_eq!(all, [[0], [0], [0], [0], [1]]);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        return assert_eq!(server.posts(Does::Answers).await.1, [2]);
    }
    panic!("each time the machine stalled");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_a_connection_that_the_server_ended() {
    let server = Server::start();
    assert_eq!(server.posts(Does::AnswersAndLeaves).await.1, [0]);
    let (answer, over) = server.posts(Does::Answers).await;
    assert_eq!((answer.unwrap().status, over), (200, vec![1]));
    // It ends connections so early that none is trusted any more, kept or not.
    assert_eq!(server.posts(Does::Answers).await.1, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_lost_and_nothing_is_sent_twice() {
    let mut done = 0;
    for does in [Does::AnswersHalf, Does::Leaves] {
        for _ in 0..TRIES {
            let server = Server::start();
            let mut all = vec![server.posts(Does::Answers).await.1];
            // Over the kept connection, and over a new one.
            for _ in 0..2 {
                let (answer, over) = server.posts(does).await;
                assert!(is_lost(&answer), "{does:?}: {answer:?}");
                all.push(over);
            }
            if !server.pace.is_late() {
                assert_eq!(all, [[0], [0], [1]], "{does:?}");
                done += 1;
                break;
            }
        }
    }
    assert_eq!(done, 2, "each time the machine stalled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_repeated_is_sent_again_over_a_new_connection() {
    for _ in 0..TRIES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (script, does) = channel();
        let (told, saw) = channel();
        thread::spawn(move || {
            let does = Mutex::new(does);
            for (number, stream) in listener.incoming().flatten().enumerate() {
                converse(stream, number, (&does, &told));
            }
        });
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        let client = Client::unix(&path, limits);
        let (call, pace) = (|| Call::post("/").json(&"body").unwrap(), Pace::default());
        script.send(Does::Answers).unwrap();
        assert_eq!(client.call::<u8>(call()).await.unwrap(), 21);
        pace.answered();
        let mut all = vec![seen(&saw, false)];
        for does in [Does::Leaves, Does::Answers] {
            script.send(does).unwrap();
        }
        assert_eq!(client.call::<u8>(call().idempotent()).await.unwrap(), 21);
        pace.answered();
        all.push(seen(&saw, true));
        script.send(Does::Leaves).unwrap();
        let lost = client.call::<u8>(call()).await.unwrap_err();
        pace.answered();
        if pace.is_late() {
            continue;
        }
        assert!(matches!(lost, CallError::Interrupted { .. }), "{lost:?}");
        all.push(seen(&saw, true));
        return assert_eq!(all, [vec![0], vec![0, 1], vec![1]]);
    }
    panic!("each time the machine stalled");
}
