//! Clients that ask the same question again and again over HTTP, each on a connection of its own
//! for every request, or on one for all.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// What is asked.
#[derive(Debug)]
pub struct Question {
    pub address: SocketAddr,
    pub path: &'static str,
    pub content_type: &'static str,
    /// Clients go through them one by one, each from a place of its own.
    pub bodies: Vec<Vec<u8>>,
    /// The status of a good answer.
    pub status: &'static [u8],
    /// What a good answer has in it.
    pub good: &'static [u8],
    /// Whether a connection is used again.
    pub keep: bool,
    /// The process that answers; its children count with it.
    pub server: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Load {
    pub per_second: f64,
    /// Processor time of the server for one answer, microseconds: the machine may be busy otherwise.
    pub cpu_us: f64,
    /// Processor time of the clients for one answer, microseconds.
    pub client_us: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
}

impl Question {
    fn text(&self, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{}\r\n",
            self.path,
            self.address,
            self.content_type,
            body.len(),
            if self.keep { "" } else { "connection: close\r\n" },
        );
        [head.as_bytes(), body].concat()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_nodelay(true).expect("an option");
        stream
    }

    /// Looks at the status of every answer, and through all of every eighth: it is the server that
    /// is to be measured.
    fn check(&self, answer: &[u8], whole: bool) {
        let status = answer.get(9..12) == Some(self.status);
        let good = || answer.windows(self.good.len()).any(|part| part == self.good);
        assert!(status && (!whole || good()), "{}", String::from_utf8_lossy(answer));
    }

    /// Asks with `clients` at once for `length`.
    pub fn ask(&self, clients: usize, length: Duration) -> Load {
        let texts: Vec<Vec<u8>> = self.bodies.iter().map(|body| self.text(body)).collect();
        let stop = AtomicBool::new(false);
        let (spent, own) = (processor_s(self.server), own_processor_s());
        let since = Instant::now();
        let mut times: Vec<f64> = thread::scope(|scope| {
            let client = |number: usize| {
                let mut texts = texts.iter().cycle().skip(number * texts.len() / clients);
                let mut times = Vec::new();
                let mut kept = None;
                let mut answer = Vec::with_capacity(16 << 10);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let mut stream = kept.take().unwrap_or_else(|| self.connect());
                    let text = texts.next().expect("a question");
                    stream.write_all(text).expect("it takes the request");
                    read(&mut stream, &mut answer, self.keep);
                    self.check(&answer, times.len() % 8 == 0);
                    times.push(begun.elapsed().as_secs_f64() * 1000.0);
                    kept = self.keep.then_some(stream);
                }
                times
            };
            let running: Vec<_> = (0..clients).map(|n| scope.spawn(move || client(n))).collect();
            thread::sleep(length);
            stop.store(true, Ordering::Relaxed);
            running.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        let elapsed = since.elapsed().as_secs_f64();
        let (spent, own) = (processor_s(self.server) - spent, own_processor_s() - own);
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        let count = f64::from(u32::try_from(times.len()).expect("fewer"));
        let (cpu_us, client_us) = (spent * 1e6 / count, own * 1e6 / count);
        Load { per_second: count / elapsed, cpu_us, client_us, median_ms: at(50), p99_ms: at(99) }
    }
}

/// Reads one answer: to its end, or as long as it says.
fn read(stream: &mut TcpStream, answer: &mut Vec<u8>, keep: bool) {
    answer.clear();
    if !keep {
        stream.read_to_end(answer).expect("an answer");
        return;
    }
    let mut part = [0; 16 << 10];
    loop {
        let count = stream.read(&mut part).expect("an answer");
        assert!(count > 0, "the answer ended early");
        answer.extend_from_slice(&part[..count]);
        let Some(head) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let (_, rest) = text.split_once("content-length: ").expect("a length");
        let length: usize = rest.lines().next().expect("a line").trim().parse().expect("a number");
        if answer.len() >= head + 4 + length {
            return;
        }
    }
}

/// A process and its children.
pub fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// Processor time that the clients have used.
fn own_processor_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let whole = f64::from(u32::try_from(time.tv_sec).expect("seconds"));
    whole + f64::from(u32::try_from(time.tv_nsec).expect("nanoseconds")) / 1e9
}

/// Processor time that a process and its children have used.
fn processor_s(pid: u32) -> f64 {
    let ticks = |pid: u32| -> u32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state is the third field, times are 14 and 15.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum()
    };
    // A tick is a hundredth of a second on Linux.
    family(pid).into_iter().map(ticks).map(f64::from).sum::<f64>() / 100.0
}
