//! Stock NBD clients against our export.

use std::{fs, sync::Arc};

use crate::fixture::{Dir, content, open_rw, read_all, run, serve, tool, uri};

const SIZE: usize = 8 << 20;

#[test]
fn nbdinfo_sees_what_we_offer() {
    let dir = Dir::new();
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&content(SIZE)))));
    let Some(mut info) = tool("nbdinfo") else { return };
    let shown = run(info.args(["--list", "--json"]).arg(uri(&socket))).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["exports"].as_array().unwrap().len(), 2);
    let export = &shown["exports"][0];
    for flag in ["can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df"] {
        assert_eq!(export[flag], true, "{flag}");
    }
    assert_eq!(export["export-size"], SIZE);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["contexts"][0], "base:allocation");
}

#[test]
fn nbdcopy_round_trips_over_several_connections() {
    let dir = Dir::new();
    let path = dir.empty(SIZE as u64);
    let (server, socket) = serve(&dir, Arc::new(open_rw(&path)));
    let source = dir.file("in.raw", &content(SIZE));
    let copied = dir.path("out.raw");
    let Some(mut copy) = tool("nbdcopy") else { return };
    run(copy.args(["--connections=4", "--flush"]).arg(&source).arg(uri(&socket)));
    run(tool("nbdcopy").unwrap().arg(uri(&socket)).arg(&copied));
    assert!(fs::read(&copied).unwrap() == content(SIZE), "another content came back");
    server.stop().unwrap();
    drop(server);
    assert!(read_all(&open_rw(&path)) == content(SIZE), "another content is stored");
}

#[test]
fn qemu_img_converts_and_compares() {
    let dir = Dir::new();
    let volume = open_rw(&dir.empty(SIZE as u64));
    let (_server, socket) = serve(&dir, Arc::new(volume));
    let source = dir.file("in.raw", &content(SIZE));
    let Some(mut convert) = tool("qemu-img") else { return };
    let target = format!("nbd+unix:///v?socket={}", socket.display());
    run(convert.args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(&source).arg(&target));
    let compare = || {
        let mut compare = tool("qemu-img").unwrap();
        compare.args(["compare", "-f", "raw", "-F", "raw"]).arg(&source).arg(&target);
        compare
    };
    run(&mut compare());
    let Some(mut io) = tool("qemu-io") else { return };
    let steps = ["write -P 7 513 1000", "aio_write -P 8 1M 64k", "aio_flush", "write -z 2M 1M"];
    for step in steps.into_iter().chain(["discard 3M 1M", "read -P 7 513 1000", "flush"]) {
        io.args(["-c", step]);
    }
    let shown = String::from_utf8(run(io.args(["-f", "raw"]).arg(&target)).stdout).unwrap();
    assert!(!shown.contains("verification failed"), "{shown}");
    assert!(!compare().output().unwrap().status.success());
}

#[test]
fn fio_verifies_what_it_wrote() {
    let dir = Dir::new();
    let (server, socket) = serve(&dir, Arc::new(open_rw(&dir.empty(SIZE as u64))));
    let Some(mut fio) = tool("fio") else { return };
    if !String::from_utf8_lossy(&run(tool("fio").unwrap().arg("--enghelp")).stdout).contains("nbd")
    {
        eprintln!("Skipped: fio has no nbd engine");
        return;
    }
    fio.args(["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k"]);
    fio.args(["--bs_unaligned=0", "--size=8M", "--iodepth=8", "--verify=crc32c", "--do_verify=1"]);
    fio.args(["--fsync=16", "--verify_fatal=1", "--output-format=terse"]);
    run(fio.arg(format!("--uri={}", uri(&socket))).current_dir(dir.path("")));
    let counted = server.counters().snapshot();
    assert!(counted.writes > 100 && counted.flushes > 0 && counted.errors == 0, "{counted:?}");
    assert_eq!(server.volume().size(), SIZE as u64);
}
