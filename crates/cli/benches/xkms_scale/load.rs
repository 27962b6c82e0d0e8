//! Questions to the trust services as they come from many clients: at random instants, whether or not
//! the last one is answered; and what that costs the processes. Over plain HTTP, on connections that
//! are kept: what TLS costs is in Table 1.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use xkms::message::{Binding, KeyInfo, QueryKeyBinding, Request, RequestBody, RequestHead};

use crate::layers::{
    dice::Dice,
    figures::{mean, one_of, share},
    lab::Lab,
};

/// Connections that questions are asked on at once.
const CONNECTIONS: usize = 32;
/// Stands for the name in the text of a question.
const NAME: &str = "NAME-OF-A-KEY";

/// What is sent to each trust service.
#[derive(Debug)]
pub struct Asking {
    texts: Vec<(String, String)>,
}

impl Asking {
    pub fn of(lab: &Lab) -> Self {
        let text = |url: String| {
            let binding = Binding { key_info: Some(KeyInfo::named(NAME)), ..Binding::default() };
            let body = RequestBody::Validate(QueryKeyBinding { binding, time: None });
            let text = Request { head: RequestHead::new("I1", &url), body }.to_element().to_xml();
            let address = url.trim_start_matches("http://").trim_end_matches("/xkms").to_owned();
            (address, text)
        };
        Self { texts: lab.sites.iter().map(|site| text(site.url())).collect() }
    }

    pub fn connect(&self, site: usize) -> TcpStream {
        let stream = TcpStream::connect(&self.texts[site].0).expect("the trust service");
        stream.set_nodelay(true).expect("an option");
        stream
    }

    /// Asks one what it knows of a key, and reads the answer to its end; `false` if it was too busy.
    pub fn ask(&self, stream: &mut TcpStream, site: usize, name: &str) -> bool {
        let (address, text) = &self.texts[site];
        let text = text.replace(NAME, name);
        let head = format!(
            "POST /xkms HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/xml\r\n\
             content-length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(&[head, text].concat().into_bytes()).expect("it takes the question");
        let (mut answer, mut part) = (Vec::new(), [0; 16 << 10]);
        loop {
            let count = stream.read(&mut part).expect("an answer");
            assert!(count > 0, "the answer ended early");
            answer.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let (_, rest) = head.split_once("content-length: ").expect("a length");
            let length: usize = rest.lines().next().unwrap_or("0").parse().expect("a number");
            if body.len() >= length {
                let busy = body.contains("#Receiver") && body.contains("#Refused");
                assert!(busy || body.contains("#Success"), "{body}");
                return !busy;
            }
        }
    }
}

/// Questions at `rate` a second for `length`, of which the share `hit` is about a key that the library
/// has; how long each took from the instant it was due, milliseconds, and what share was refused
/// because the service was too busy.
pub fn open(lab: &Lab, rate: f64, hit: f64, length: Duration) -> (Vec<f64>, f64) {
    let asking = Asking::of(lab);
    let services = lab.sites.len();
    let mut dice = Dice::new(rate.to_bits() ^ hit.to_bits().rotate_left(20));
    let mut due = Vec::new();
    let mut at = 0.0;
    loop {
        at += -(1.0 - share(&mut dice)).ln() / rate;
        if at >= length.as_secs_f64() {
            break;
        }
        due.push((
            Duration::from_secs_f64(at),
            one_of(&mut dice, services),
            share(&mut dice) < hit,
        ));
    }
    let begun = Instant::now();
    let (next, times) = (Mutex::new(due.into_iter().enumerate()), Mutex::new(Vec::new()));
    let worker = || {
        let mut streams: Vec<Option<TcpStream>> = (0..services).map(|_| None).collect();
        loop {
            let taken = next.lock().expect("no panic").next();
            let Some((number, (due, site, known))) = taken else { return };
            thread::sleep(due.saturating_sub(begun.elapsed()));
            let name = if known {
                format!("local-{site}")
            } else {
                format!("nobody-{}-{number}", begun.elapsed().as_nanos())
            };
            let stream = streams[site].get_or_insert_with(|| asking.connect(site));
            let answered = asking.ask(stream, site, &name);
            let ms = (begun.elapsed().saturating_sub(due)).as_secs_f64() * 1000.0;
            times.lock().expect("no panic").push((ms, answered));
        }
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(worker);
        }
    });
    let times = times.into_inner().expect("no panic");
    let refused: Vec<f64> = times.iter().map(|(_, good)| if *good { 0.0 } else { 1.0 }).collect();
    let answered = times.into_iter().filter(|(_, good)| *good).map(|(ms, _)| ms).collect();
    (answered, mean(&refused))
}

/// Processor time that the processes have used, milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processors {
    /// Keepers and readers of all trust services.
    pub trust: f64,
    pub centre: f64,
    pub pki: f64,
}

impl Processors {
    pub fn of(lab: &Lab) -> Self {
        let trust = (0..lab.sites.len()).map(|at| lab.keeper_pid(at)).map(spent).sum();
        Self { trust, centre: spent(lab.centre_pid()), pki: spent(lab.pki.pid()) }
    }

    pub fn since(self, before: &Self) -> Self {
        Self {
            trust: self.trust - before.trust,
            centre: self.centre - before.centre,
            pki: self.pki - before.pki,
        }
    }

    /// For one of so many.
    pub fn each(self, count: u32) -> Self {
        let count = f64::from(count);
        Self { trust: self.trust / count, centre: self.centre / count, pki: self.pki / count }
    }
}

/// Of a process and its children; a tick is a hundredth of a second on Linux.
fn spent(pid: u32) -> f64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|one| one.parse().ok());
    let own = |pid: u32| -> f64 {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state is the third field, times are 14 and 15.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    std::iter::once(pid).chain(children).map(own).sum::<f64>() * 10.0
}
