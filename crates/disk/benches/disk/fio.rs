//! fio's nbd engine as the client.

use std::{path::Path, process::Command};

use serde_json::Value;

/// A kind of work.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub name: &'static str,
    pub rw: &'static str,
    pub block: u32,
    pub depth: u16,
}

/// The six of every comparison.
pub const JOBS: [Job; 6] = [
    Job { name: "seqread", rw: "read", block: 1 << 20, depth: 4 },
    Job { name: "seqwrite", rw: "write", block: 1 << 20, depth: 4 },
    Job { name: "rr4k-qd1", rw: "randread", block: 4096, depth: 1 },
    Job { name: "rr4k-qd32", rw: "randread", block: 4096, depth: 32 },
    Job { name: "rw4k-qd1", rw: "randwrite", block: 4096, depth: 1 },
    Job { name: "rw4k-qd32", rw: "randwrite", block: 4096, depth: 32 },
];

impl Job {
    pub fn reads(&self) -> bool {
        self.rw.ends_with("read")
    }

    pub fn is_sequential(&self) -> bool {
        self.block > 4096
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Bytes a second for sequential work, operations a second otherwise.
    pub rate: f64,
    pub operations: f64,
    pub bytes: f64,
}

/// Runs `job` for `millis`; without, once through `size`.
pub fn run(socket: &Path, job: &Job, size: u64, millis: Option<u32>) -> Done {
    let mut fio = Command::new("fio");
    fio.args(["--name=j", "--ioengine=nbd", "--output-format=json"]);
    fio.arg(format!("--uri=nbd+unix:///?socket={}", socket.display()));
    fio.arg(format!("--rw={}", job.rw)).arg(format!("--bs={}", job.block));
    fio.arg(format!("--iodepth={}", job.depth)).arg(format!("--size={size}"));
    if let Some(millis) = millis {
        fio.args(["--time_based"]).arg(format!("--runtime={millis}ms"));
    }
    let output = fio.current_dir("/tmp").output().expect("fio");
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find("{\n").unwrap_or_else(|| panic!("fio said: {text}"));
    let told: Value = serde_json::from_str(&text[start..]).expect("fio's JSON");
    let side = &told["jobs"][0][if job.reads() { "read" } else { "write" }];
    let number = |key: &str| side[key].as_f64().expect("a number");
    let rate = if job.is_sequential() { number("bw_bytes") } else { number("iops") };
    Done { rate, operations: number("total_ios"), bytes: number("io_bytes") }
}
