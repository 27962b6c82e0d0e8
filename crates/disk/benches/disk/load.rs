//! A load generator that speaks both of our exports, so that the ratio between them means
//! something: one connection or one ring, a fixed number of requests in flight, the data neither
//! made nor looked at.

use std::{
    io::{BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    fio::{Done, Job},
    master::{self, Master},
};

/// Where the next request goes: sequential, or a xorshift sequence.
struct Places {
    blocks: u64,
    next: u64,
    random: bool,
}

impl Places {
    fn new(job: &Job, size: u64) -> Self {
        Self { blocks: size / u64::from(job.block), next: 1, random: !job.is_sequential() }
    }

    fn block(&mut self) -> u64 {
        if self.random {
            self.next ^= self.next << 13;
            self.next ^= self.next >> 7;
            self.next ^= self.next << 17;
        } else {
            self.next += 1;
        }
        self.next % self.blocks
    }
}

fn done(job: &Job, operations: u64, since: Instant) -> Done {
    let operations = operations as f64;
    let bytes = operations * f64::from(job.block);
    let seconds = since.elapsed().as_secs_f64();
    let rate = if job.is_sequential() { bytes / seconds } else { operations / seconds };
    Done { rate, operations, bytes }
}

/// Over vhost-user-blk.
pub fn vhost(socket: &Path, job: &Job, size: u64, millis: u32) -> Done {
    let mut master = Master::new();
    master.connect(socket).expect("vhost-user");
    let mut places = Places::new(job, size);
    let kind = if job.reads() { master::READ } else { master::WRITE };
    let sectors = u64::from(job.block / 512);
    let before = master.available();
    for slot in 0..job.depth {
        master.prepare(slot, kind, places.block() * sectors, job.block);
        master.offer(3 * slot);
    }
    master.publish(before);
    let (since, mut operations) = (Instant::now(), 0_u64);
    let patience = Duration::from_millis(u64::from(millis));
    let mut flying = job.depth;
    while flying > 0 {
        // All that came back is sent out again in one go, as a guest's driver does.
        let before = master.available();
        let mut status = master.completed(5000).expect("an answer");
        loop {
            assert_eq!(status.1, 0, "a request failed");
            operations += 1;
            if since.elapsed() < patience {
                master.prepare(status.0, kind, places.block() * sectors, job.block);
                master.offer(3 * status.0);
            } else {
                flying -= 1;
            }
            match master.ready() {
                Some(next) => status = next,
                None => break,
            }
        }
        master.publish(before);
    }
    done(job, operations, since)
}

/// Over NBD.
pub fn nbd(socket: &Path, job: &Job, size: u64, millis: u32) -> Done {
    let mut stream = UnixStream::connect(socket).expect("nbd");
    stream.read_exact(&mut [0; 18]).expect("greeting");
    stream.write_all(&3_u32.to_be_bytes()).expect("flags");
    // NBD_OPT_EXPORT_NAME "": then 10 bytes, and transmission with simple replies.
    stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").expect("option");
    stream.read_exact(&mut [0; 10]).expect("export");
    let mut answers = BufReader::with_capacity(256 << 10, stream.try_clone().expect("stream"));
    let mut places = Places::new(job, size);
    let payload = vec![0x5a; job.block as usize];
    let mut data = vec![0; job.block as usize];
    let mut batch = Vec::new();
    let mut ask = |batch: &mut Vec<u8>| {
        batch.extend(0x2560_9513_u32.to_be_bytes());
        batch.extend([0, 0, 0, u8::from(!job.reads())]);
        batch.extend(7_u64.to_be_bytes());
        batch.extend((places.block() * u64::from(job.block)).to_be_bytes());
        batch.extend(job.block.to_be_bytes());
        if !job.reads() {
            batch.extend(&payload);
        }
    };
    (0..job.depth).for_each(|_| ask(&mut batch));
    stream.write_all(&batch).expect("requests");
    let (since, mut operations) = (Instant::now(), 0_u64);
    let patience = Duration::from_millis(u64::from(millis));
    let mut flying = job.depth;
    while flying > 0 {
        batch.clear();
        loop {
            let mut head = [0; 16];
            answers.read_exact(&mut head).expect("reply");
            assert_eq!(head[4..8], [0; 4], "a request failed");
            if job.reads() {
                answers.read_exact(&mut data).expect("data");
            }
            operations += 1;
            if since.elapsed() < patience {
                ask(&mut batch);
            } else {
                flying -= 1;
            }
            if answers.buffer().len() < 16 || flying == 0 {
                break;
            }
        }
        stream.write_all(&batch).expect("requests");
    }
    done(job, operations, since)
}
