//! A relay on loopback that stands for a network: it counts the bytes of each connection, and lets
//! everything take as long as a line with a given round trip would.
//!
//! A connection costs a round trip before the first byte goes through, as the handshake of TCP does;
//! each byte then takes half a one. There is no loss and no limit of bandwidth.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// One relay; its thread ends with the process.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    /// Round trip, microseconds.
    trip: AtomicU64,
    /// Bytes of all connections, both ways.
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Relay {
    /// Listens; where to is said later.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                thread::spawn(move || pass(&shared, &stream));
            }
        });
        Self { address, shared }
    }

    /// Where connections go from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// The round trip from now on.
    pub fn delay(&self, trip: Duration) {
        let trip = u64::try_from(trip.as_micros()).expect("short");
        self.shared.trip.store(trip, Ordering::Relaxed);
    }

    /// Bytes and connections so far.
    pub fn count(&self) -> (u64, u64) {
        let Shared { bytes, connections, .. } = &*self.shared;
        (bytes.load(Ordering::Relaxed), connections.load(Ordering::Relaxed))
    }
}

/// One connection.
fn pass(shared: &Arc<Shared>, client: &TcpStream) {
    let begun = Instant::now();
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let trip = Duration::from_micros(shared.trip.load(Ordering::Relaxed));
    thread::scope(|scope| {
        scope.spawn(|| one_way(shared, client, &server, begun + trip, trip / 2));
        scope.spawn(|| one_way(shared, &server, client, begun, trip / 2));
    });
}

/// One direction: nothing goes before `earliest`, and everything takes `half` a trip.
fn one_way(
    shared: &Shared,
    mut from: &TcpStream,
    mut to: &TcpStream,
    earliest: Instant,
    half: Duration,
) {
    thread::scope(|scope| {
        let (put, take) = mpsc::channel::<(Instant, Vec<u8>)>();
        scope.spawn(move || {
            while let Ok((due, bytes)) = take.recv() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if bytes.is_empty() || to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let due = Instant::now().max(earliest) + half;
            shared.bytes.fetch_add(u64::try_from(count).expect("few"), Ordering::Relaxed);
            if put.send((due, buffer[..count].to_vec())).is_err() || count == 0 {
                break;
            }
        }
    });
}
