//! What is done: all clients in the same minutes, for the times; then some of them one after the other,
//! for bytes and memory, which two processes at once would blur.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::layers::{
    clients::{Ours, Theirs, Took, Watch, both, own_openssl},
    dice::Dice,
    figures::one_of,
    lab::Lab,
};

/// Questions that each client asks.
const QUERIES: usize = 4;

/// A round of all clients.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// Names of keys begin with it.
    pub tag: &'a str,
    /// Clients of each kind.
    pub each: usize,
    /// Round trip to the PKI.
    pub trip: Duration,
    /// Between the starts of two clients; zero: all at once.
    pub gap: Duration,
}

/// Times of a round, milliseconds: those through the four layers, and the direct ones.
#[derive(Debug, Default)]
pub struct Round {
    pub register: (Vec<f64>, Vec<f64>),
    /// And whether the library of the client's server answered.
    pub queries: Vec<(f64, bool)>,
    /// Path, then status.
    pub ocsp: Vec<[f64; 2]>,
    pub crl: Vec<f64>,
    pub migrate: (Vec<f64>, Vec<f64>),
}

impl Round {
    /// Both steps of a query by OCSP.
    pub fn sums(&self) -> Vec<f64> {
        self.ocsp.iter().map(|[path, status]| path + status).collect()
    }
}

/// The clients of a round.
struct Cast<'a> {
    lab: &'a Lab,
    ours: Vec<Ours>,
    theirs: Vec<Theirs>,
}

impl<'a> Cast<'a> {
    fn new(lab: &'a Lab, dir: &Path, program: &Path, (tag, each): (&str, usize)) -> Self {
        let ours = (0..each)
            .map(|at| Ours::new(lab, dir, program, &format!("{tag}x{at}"), at % lab.sites.len()));
        let theirs = (0..each).map(|at| Theirs::new(lab, dir, &format!("{tag}p{at}")));
        Self { lab, ours: ours.collect(), theirs: theirs.collect() }
    }

    /// All clients in turn, one of each kind, a gap apart.
    fn wave<A: Send, B: Send>(
        &self,
        gap: Duration,
        ours: impl Fn(usize, &Ours) -> A + Sync,
        theirs: impl Fn(usize, &Theirs) -> B + Sync,
    ) -> (Vec<A>, Vec<B>) {
        let begun = Instant::now();
        let due = |turn: usize| {
            let after = gap * u32::try_from(turn).expect("few");
            thread::sleep((begun + after).saturating_duration_since(Instant::now()));
        };
        let (ours, theirs, due) = (&ours, &theirs, &due);
        thread::scope(|scope| {
            let mut running = (Vec::new(), Vec::new());
            for (at, (one, other)) in self.ours.iter().zip(&self.theirs).enumerate() {
                running.0.push(scope.spawn(move || {
                    due(2 * at);
                    ours(at, one)
                }));
                running.1.push(scope.spawn(move || {
                    due(2 * at + 1);
                    theirs(at, other)
                }));
            }
            let (ours, theirs) = running;
            let ours = ours.into_iter().map(|one| one.join().expect("a client"));
            let ours = ours.collect();
            (ours, theirs.into_iter().map(|one| one.join().expect("a client")).collect())
        })
    }
}

fn ms(took: Vec<Took>) -> Vec<f64> {
    took.into_iter().map(|one| one.ms).collect()
}

/// Whether the library of the client's own server answered.
fn is_local(said: &str) -> bool {
    let said: Value = serde_json::from_str(said).unwrap_or_default();
    said["answer"]["knowledge"]["anchor"] == "trust-service"
}

/// Registration, questions about keys of others drawn by lot, migration.
pub fn together(lab: &Lab, dir: &Path, program: &Path, load: &Workload<'_>) -> Round {
    let Workload { tag, each, trip, gap } = *load;
    lab.wide.delay(Duration::ZERO);
    lab.direct.delay(Duration::ZERO);
    let cast = Cast::new(lab, dir, program, (tag, each));
    lab.wide.delay(trip);
    lab.direct.delay(trip);
    let watch = Watch::Nothing;
    let mut round = Round::default();
    let (ours, theirs) =
        cast.wave(gap, |_, one| one.register(lab, watch), |_, one| one.register(lab, watch));
    round.register = (ms(ours), ms(theirs));
    let mut dice = Dice::new(0x7ab1e);
    for _ in 0..QUERIES {
        let about: Vec<usize> = (0..each).map(|_| one_of(&mut dice, each)).collect();
        let (ours, theirs) = cast.wave(
            gap,
            |at, one| one.query(lab, &cast.ours[about[at]].name, watch),
            |at, one| one.query_ocsp(lab, &cast.theirs[about[at]].certificate(), watch),
        );
        round.queries.extend(ours.iter().map(|took| (took.ms, is_local(&took.said))));
        round.ocsp.extend(theirs.iter().map(|[path, status]| [path.ms, status.ms]));
    }
    let about: Vec<usize> = (0..each).map(|_| one_of(&mut dice, each)).collect();
    let (_, theirs) = cast.wave(
        gap,
        |_, _| (),
        |at, one| one.query_crl(lab, &cast.theirs[about[at]].certificate(), watch),
    );
    round.crl = ms(theirs);
    let (ours, theirs) =
        cast.wave(gap, |_, one| one.migrate(lab, watch), |_, one| one.migrate(lab, watch));
    round.migrate = (ms(ours), ms(theirs));
    round
}

/// One after the other: pairs of ours and theirs for registration, query (by OCSP), migration.
#[derive(Debug, Default)]
pub struct Alone {
    pub bytes: [(Vec<f64>, Vec<f64>); 3],
    pub memory: [(Vec<f64>, Vec<f64>); 3],
    /// What of it is no file's.
    pub anonymous: [(Vec<f64>, Vec<f64>); 3],
    pub resident: [(Vec<f64>, Vec<f64>); 3],
    pub times: [(Vec<f64>, Vec<f64>); 3],
    pub crl_bytes: Vec<f64>,
    pub crl_memory: Vec<f64>,
    /// Of questions on a connection that is kept.
    pub kept_bytes: Vec<f64>,
}

/// Bytes that went over the clients' links meanwhile.
fn counted<T>(lab: &Lab, what: impl FnOnce() -> T) -> (f64, T) {
    let sum = || {
        // What was closed a moment ago is counted yet.
        thread::sleep(Duration::from_millis(20));
        let sites: u64 = lab.sites.iter().map(|site| site.relay.count().0).sum();
        u32::try_from(sites + lab.direct.count().0).expect("less than 4 GiB")
    };
    let before = sum();
    let done = what();
    (f64::from(sum() - before), done)
}

impl Alone {
    fn note(&mut self, at: usize, ours: (f64, Took), theirs: (f64, Took)) {
        self.bytes[at].0.push(ours.0);
        self.bytes[at].1.push(theirs.0);
        for (all, of) in [
            (&mut self.memory, (|took: &Took| took.pss) as fn(&Took) -> f64),
            (&mut self.anonymous, |took| took.anon),
            (&mut self.resident, |took| took.rss),
            (&mut self.times, |took| took.ms),
        ] {
            all[at].0.push(of(&ours.1));
            all[at].1.push(of(&theirs.1));
        }
    }
}

/// `each` clients of each kind, one after the other, watched.
pub fn alone(lab: &Lab, dir: &Path, program: &Path, (each, trip): (usize, Duration)) -> Alone {
    let mut cast = Cast::new(lab, dir, program, ("a", each));
    let own = own_openssl(dir);
    cast.theirs.iter_mut().for_each(|one| one.own = Some(own.clone()));
    lab.wide.delay(trip);
    lab.direct.delay(trip);
    let (mut all, watch) = (Alone::default(), Watch::Memory);
    let pairs = || cast.ours.iter().zip(&cast.theirs);
    for (ours, theirs) in pairs() {
        let ours = counted(lab, || ours.register(lab, watch));
        all.note(0, ours, counted(lab, || theirs.register(lab, watch)));
    }
    for (at, (ours, theirs)) in pairs().enumerate() {
        let about = (at + 1) % each;
        let name = cast.ours[about].name.as_str();
        let certificate = cast.theirs[about].certificate();
        let ours = counted(lab, || ours.query(lab, name, watch));
        all.note(1, ours, counted(lab, || both(theirs.query_ocsp(lab, &certificate, watch))));
        let (bytes, crl) = counted(lab, || theirs.query_crl(lab, &certificate, watch));
        all.crl_bytes.push(bytes);
        all.crl_memory.push(crl.pss);
    }
    all.kept_bytes = kept(lab, &cast);
    for (ours, theirs) in pairs() {
        let ours = counted(lab, || ours.migrate(lab, watch));
        all.note(2, ours, counted(lab, || theirs.migrate(lab, watch)));
    }
    all
}

/// Questions to a client that goes on: the first one, which connects, is not counted.
fn kept(lab: &Lab, cast: &Cast<'_>) -> Vec<f64> {
    let client = &cast.ours[0];
    let serving = client.serve(lab);
    let ask = |about: &Ours| counted(lab, || serving.ask(&about.name)).0;
    ask(client);
    cast.ours.iter().map(ask).collect()
}
