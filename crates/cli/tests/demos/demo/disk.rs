//! What stands on the disk, and what becomes of a volume that somebody copies, alters or sets back.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use super::{
    keeping::{kill_9, pid_of},
    launch::BOOT,
};
use crate::{
    checks::Checks,
    world::{self, PATIENCE, Said, World, eventually, run},
};

/// A copy of v1's boot volume, in other hands.
const STOLEN: &str = "stolen.img";

static MARKER: Mutex<String> = Mutex::new(String::new());

/// The marker that the guest wrote at its first start.
pub fn marker() -> String {
    MARKER.lock().map(|marker| marker.clone()).unwrap_or_default()
}

/// Whether `needle` stands anywhere in the file.
fn contains(path: &Path, needle: &[u8]) -> bool {
    let mut file = File::open(path).expect("the file is there");
    let mut window = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).expect("the file can be read");
        if n == 0 {
            return false;
        }
        window.extend_from_slice(&buffer[..n]);
        if window.windows(needle.len()).any(|part| part == needle) {
            return true;
        }
        let keep = window.len().min(needle.len());
        window.drain(..window.len() - keep);
    }
}

pub fn encrypted(world: &World, checks: &mut Checks) {
    checks.part("the VM's disk on the host");
    let console = world.console("v1");
    let marker = console
        .split_once("marker-written ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or_default()
        .to_owned();
    let volume = world.path("hosts/a/state/vms/v1/boot.img");
    let prefix = b"VOUCHSAFE-MARKER-";
    checks.check(
        "the guest's marker stands nowhere in the volume's file",
        !marker.is_empty() && !contains(&volume, prefix),
        &marker,
    );
    if let Ok(mut kept) = MARKER.lock() {
        *kept = marker;
    }
    stolen(world, checks, &volume);
    flipped_bit(world, checks);
    stock_tool(world, checks);
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

/// `vouchsafe volume ... --json`.
fn volume(args: &[&str]) -> Said {
    let mut all = vec!["volume"];
    all.extend(args);
    all.push("--json");
    run(env!("CARGO_BIN_EXE_vouchsafe"), &all)
}

/// A copy of the file, in other hands.
fn stolen(world: &World, checks: &mut Checks, of: &Path) {
    let copy = world.path(STOLEN);
    std::fs::copy(of, &copy).expect("a copy");
    let copy = text(&copy);
    let said = volume(&["inspect", &copy]);
    let shown = said.json();
    let slot = &shown["key_slots"][0];
    checks.check(
        "a copy shows what anybody may see: the format, and which key it needs",
        shown["format"] == "vault" && slot["kind"] == "random-key" && slot["kmi"]["vm"] == "v1",
        format!("{} {}", shown["cipher"], slot["kmi"]),
    );
    let seen = volume(&["check", &copy]).refusal();
    checks.check("without a key it does not open", seen == "key-missing", seen);
    let wrong = world.path("wrong.key");
    std::fs::write(&wrong, [0x5a; 32]).expect("a file");
    let seen = volume(&["check", "--key-file", &text(&wrong), &copy]).refusal();
    checks.check("nor with another key", seen == "wrong-key", seen);
}

/// One bit of a volume whose key its owner has.
fn flipped_bit(world: &World, checks: &mut Checks) {
    let (file, key) = (text(&world.path("own.vault")), text(&world.path("wrong.key")));
    let made = volume(&["create", "--size", "8M", "--key-file", &key, &file]);
    let socket = text(&world.path("own.sock"));
    let mut serving = Command::new(env!("CARGO_BIN_EXE_vouchsafe"))
        .args(["volume", "serve", "--key-file", &key, "--socket", &socket, &file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("vouchsafe starts");
    let there = eventually(PATIENCE, || Path::new(&socket).exists().then_some(()));
    let uri = format!("nbd+unix:///?socket={socket}");
    let said = run("qemu-io", &["-f", "raw", "-c", "write -P 0x5a 16384 8192", &uri]);
    run("kill", &[&serving.id().to_string()]);
    let ended = serving.wait().is_ok_and(|status| status.success());
    checks.check(
        "a volume of one's own takes two sectors from QEMU",
        made.code == 0 && there.is_some() && said.code == 0 && ended,
        said.complaint(),
    );
    flip(Path::new(&file), 5);
    let said = volume(&["check", "--key-file", &key, &file]);
    let shown = said.json();
    checks.check(
        "one bit is flipped: check ends with exit status 3 and names the sector",
        said.refusal() == "sector-damaged" && shown["bad"] == serde_json::json!([20480]),
        format!("{}: {}", said.refusal(), shown["damage"]),
    );
}

/// Flips one bit of the first version of a sector: slot `D + sector`, `D` from the header.
fn flip(file: &Path, sector: u64) {
    let file = File::options().read(true).write(true).open(file).expect("the volume");
    let (mut log, mut byte) = ([0; 4], [0]);
    file.read_exact_at(&mut log, 56).expect("a header");
    let at = (256 + u64::from(u32::from_le_bytes(log)) + sector) * 4096 + 77;
    file.read_exact_at(&mut byte, at).expect("the sector");
    file.write_all_at(&[byte[0] ^ 4], at).expect("writable");
}

/// The other format, judged by a tool that is not ours.
fn stock_tool(world: &World, checks: &mut Checks) {
    let (file, key) = (text(&world.path("own.luks2")), text(&world.path("wrong.key")));
    let made = volume(&["create", "--format", "luks2", "--size", "8M", "--key-file", &key, &file]);
    let dump = run("cryptsetup", &["luksDump", &file]);
    let facts = ["aes-xts-plain64", "4096 [bytes]"].iter().all(|fact| dump.stdout.contains(fact));
    checks.check(
        "cryptsetup luksDump reads a volume of the other format: XTS, 4 KiB sectors",
        made.code == 0 && facts,
        dump.complaint(),
    );
    let args = ["open", "--test-passphrase", "--key-file", &key, &file];
    checks.check("and opens it with its key", run("cryptsetup", &args).code == 0, "");
}

/// A VM that shares its memory with its disk process; it boots beside another.
pub fn sharing(world: &World, image: &Path) -> Said {
    let image = text(image);
    let how = ["--transport", "vhost-user", "--pcr-banks", "sha256,sha384"];
    let made = world.vouchsafe(&[&["vm", "create", "v4", "--image", &image], &how[..]].concat());
    if made.code == 0 { start_sharing(world) } else { made }
}

fn start_sharing(world: &World) -> Said {
    world.vouchsafe(&["vm", "start", "v4", "--host", "b"])
}

/// The process that serves a VM's boot volume.
fn process(world: &World, vm: &str, host: &str) -> String {
    let socket = text(&world.path(&format!("run/{host}/{vm}/disk-boot-control.sock")));
    let pattern = format!("^/[^ ]*vouchsafe-disk .*{socket}");
    run("pgrep", &["-f", &pattern]).stdout.trim().to_owned()
}

/// How often a VM's guest has written.
fn beat(world: &World, vm: &str) -> Option<u64> {
    world.guest_says(vm, "beat", BOOT).and_then(|n| n.parse().ok())
}

/// Disk processes die while their guests write; the agent starts them again.
pub fn killed(world: &World, checks: &mut Checks, started: &Said) {
    checks.part("disk processes are killed with -9 under running guests, over both transports");
    let what = "v4 shares its memory with its disk process, and is trusted like the others";
    checks.check(what, started.code == 0, started.complaint());
    let banks = super::launch::banks_of(world, "v4");
    let what = "its vTPM has the banks it was given";
    checks.check(what, banks == ["sha256", "sha384"], banks.join(" "));
    let written = world.guest_says("v4", "marker-written", BOOT).is_some();
    checks.check("its guest writes", written, "");
    let all = [("v1", "a", "NBD"), ("v4", "b", "vhost-user-blk")];
    let before = all.map(|(vm, host, _)| (beat(world, vm).unwrap_or(0), process(world, vm, host)));
    world::kill_9(&[&before[0].1, &before[1].1]);
    for ((vm, host, transport), (before, died)) in all.into_iter().zip(before) {
        // What was written by then says nothing: a few more are awaited.
        let after = eventually(BOOT, || beat(world, vm).filter(|n| *n > before + 3)).unwrap_or(0);
        let console = world.console(vm);
        let faults = ["I/O error", "EXT4-fs error"].iter().any(|word| console.contains(word));
        let again = process(world, vm, host);
        checks.check(
            &format!("over {transport} the guest of {vm} writes on"),
            after > before && !faults && !again.is_empty() && again != died,
            format!("beat {before} -> {after}, process {died} -> {again}"),
        );
    }
}

/// That VM is stopped and started once more: what is wrong with it then.
pub fn sharing_again(world: &World) -> Result<String, String> {
    let marker = world.guest_says("v4", "marker-written", BOOT);
    let stopped = world.vouchsafe(&["vm", "stop", "v4"]);
    let said = start_sharing(world);
    let found = world.guest_says("v4", "marker-found", BOOT);
    let console = world.console("v4");
    let faults: Vec<&str> = console.lines().filter(|l| l.contains("EXT4-fs error")).collect();
    let complaints = [stopped.complaint(), said.complaint()].concat();
    let seen = format!("{marker:?} {found:?} {faults:?} {complaints}");
    let told = stopped.code == 0 && said.code == 0;
    let good = told && faults.is_empty() && found.is_some() && found == marker;
    if good { Ok(seen) } else { Err(seen) }
}

/// Its data get a new key, and whatever works on that is killed on the way.
pub fn rekeyed(world: &World, checks: &mut Checks) {
    checks.part("new data keys for a running VM, its disk process and agent killed meanwhile");
    let file = text(&world.path("hosts/b/state/vms/v4/boot.img"));
    let epoch = || volume(&["inspect", &file]).json()["epoch"].as_u64().unwrap_or(0);
    let (first, before) = (epoch(), beat(world, "v4").unwrap_or(0));
    let died = process(world, "v4", "b");
    let said = world.vouchsafe(&["vm", "rekey", "v4"]);
    // From its first step on the volume says so.
    let begun = eventually(BOOT, || (epoch() > first).then_some(()));
    world::kill_9(&[&died]);
    kill_9(pid_of(world, "host-b"));
    let ordered = said.code == 0 && begun.is_some();
    checks.check("an operator orders it, and it begins", ordered, said.complaint());
    let said = world.lab_up(&[]);
    checks.check("the agent is started again", said.code == 0, said.complaint());
    let shown = || world.vouchsafe(&["vm", "show", "v4"]).json();
    let ended = || Some(shown()).filter(|vm| vm["state"] == "running" && vm["operation"].is_null());
    let ended = eventually(BOOT, ended).is_some();
    let inspected = volume(&["inspect", &file]).json();
    let once = inspected["rekeying"] == false && epoch() == first + 1;
    checks.check("all data are under one new key", ended && once, &inspected["epoch"]);
    let again = process(world, "v4", "b");
    let after = eventually(BOOT, || beat(world, "v4").filter(|n| *n > before + 3)).unwrap_or(0);
    let faults = world.console("v4").contains("I/O error");
    let goes_on = after > before && !faults && !again.is_empty() && again != died;
    checks.check("its guest has gone on", goes_on, format!("beat {before} -> {after}"));
    let said = world.vouchsafe(&["vm", "rekey", "v4", "--wait"]);
    let done = said.code == 0 && epoch() == first + 2;
    checks.check("another order, waited for, makes another key", done, said.complaint());
}

/// The end of that VM.
pub fn clean(world: &World, checks: &mut Checks, again: &Result<String, String>) {
    checks.part("the VM whose disk process died, started again beside v1");
    let (Ok(seen) | Err(seen)) = again;
    checks.check("its file system is clean and its marker there", again.is_ok(), seen);
    let stopped = world.vouchsafe(&["vm", "stop", "v4"]);
    let gone = world.vouchsafe(&["vm", "delete", "v4"]);
    let done = stopped.code == 0 && gone.code == 0;
    checks.check("it is stopped and deleted", done, gone.complaint());
}

/// A VM's volumes between two of its starts: altered, set back, exchanged.
pub fn attacked(world: &World, checks: &mut Checks) {
    checks.part("the volumes of a stopped VM in the hands of somebody with root");
    let dir = world.path("hosts/b/state/vms/v3");
    let (boot, data) = (dir.join("boot.img"), dir.join("data.img"));
    let (own, yesterday) = (world.path("own.img"), world.path("yesterday.img"));
    std::fs::copy(&boot, &yesterday).expect("a copy");
    let start = || world.vouchsafe(&["vm", "start", "v3", "--host", "b"]);
    let said = start();
    checks.check("v3 is started", said.code == 0, said.complaint());
    let open = world.guest_says("v3", "data-volume-open", BOOT).is_some();
    let written = [5, 6].map(|n| asks(world, &format!("write {n}"), "done"));
    checks.check("its guest writes two sectors", open && written == [true; 2], "");
    let said = world.vouchsafe(&["vm", "stop", "v3"]);
    checks.check("it is stopped", said.code == 0, said.complaint());
    flip(&data, 5);
    let said = start();
    checks.check("one bit of one sector is flipped; it starts", said.code == 0, said.complaint());
    let open = world.guest_says("v3", "data-volume-open", BOOT).is_some();
    let bad = open && asks(world, "read 5", "failed");
    checks.check("its guest gets an I/O error for that sector", bad, "");
    checks.check("and for no other", open && asks(world, "read 6", "done"), "");
    let told = || world.audited_refusals().into_iter().find(|name| name == "sector-damaged");
    let seen = eventually(BOOT, told).unwrap_or_else(|| "nothing".to_owned());
    checks.refused("the host has noticed and said so", "sector-damaged", &seen, "");
    let said = world.vouchsafe(&["vm", "stop", "v3"]);
    checks.check("it is stopped again", said.code == 0, said.complaint());
    std::fs::rename(&boot, &own).expect("a rename");
    std::fs::copy(&yesterday, &boot).expect("a copy");
    let said = start();
    let what = "yesterday's copy of its boot volume does not start";
    checks.refused(what, "rolled-back", &said.refusal(), &said.detail());
    std::fs::copy(world.path(STOLEN), &boot).expect("a copy");
    let said = start();
    let what = "v1's stolen volume in its place does not open with v3's key";
    checks.refused(what, "wrong-key", &said.refusal(), &said.detail());
    restored(world, checks, (&own, &yesterday, &boot));
}

/// The way back to a backup, which takes two persons.
fn restored(world: &World, checks: &mut Checks, (own, backup, boot): (&Path, &Path, &Path)) {
    checks.part("a backup of a volume, put back on purpose");
    let start = || world.vouchsafe(&["vm", "start", "v3", "--host", "b"]);
    let wish = ["vm", "reanchor", "v3", "--reason", "the demonstration lost a day"];
    std::fs::copy(backup, boot).expect("a copy");
    let said = world.vouchsafe(&wish);
    checks.check("an operator proposes that it counts", said.code == 0, said.complaint());
    let said = world.vouchsafe(&wish);
    let what = "who proposed it does not approve it as well";
    checks.refused(what, "reanchor-same-person", &said.refusal(), &said.detail());
    let said = start();
    checks.refused("it does not start for one", "rolled-back", &said.refusal(), &said.detail());
    let said = world.as_operator("bob", &wish);
    checks.check("another operator approves it", said.code == 0, said.complaint());
    let said = start();
    let up = said.code == 0 && world.guest_says("v3", "marker-found", BOOT).is_some();
    checks.check("v3 starts from yesterday's copy", up, said.complaint());
    let said = world.vouchsafe(&["vm", "stop", "v3"]);
    checks.check("and is stopped", said.code == 0, said.complaint());
    let newest = boot.with_extension("newest");
    std::fs::rename(boot, &newest).expect("a rename");
    std::fs::rename(own, boot).expect("a rename");
    let said = start();
    let what = "the copy that was newer before does not start any more";
    checks.refused(what, "rolled-back", &said.refusal(), &said.detail());
    std::fs::rename(&newest, boot).expect("a rename");
}

/// The test guest does as it is told, and says how it went.
fn asks(world: &World, word: &str, how: &str) -> bool {
    super::guest::tell(world, "v3", "b", word, &format!("{word} {how}"))
}
