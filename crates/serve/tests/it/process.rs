//! Children: secrets by descriptor, exit status, re-adoption, death with the parent.

use std::{io::Read as _, time::Duration};

use serve::process::{Exit, ProcessId, Signal, Spawn};

const SHORT: Duration = Duration::from_secs(120);

#[test]
fn a_child_reads_its_secret_from_a_descriptor_and_not_from_its_arguments() {
    let script = r#"eval "cat <&$1"; tr '\0' ' ' < /proc/$$/cmdline"#;
    let (id, mut stdout) = Spawn::new("/bin/bash")
        .args(["-c", script])
        .secret_arg("--key-fd", b"s3cret")
        .unwrap()
        .spawn_piped()
        .unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(id.wait_exit_blocking(SHORT).unwrap(), Some(Exit::Code(0)));
    assert_eq!(said.matches("s3cret").count(), 1, "{said}");
    assert!(said.contains("--key-fd"));
}

#[test]
fn a_child_leads_its_own_session_and_inherits_no_other_descriptor() {
    let script = "ls /proc/self/fd | wc -l; cut -d' ' -f6 /proc/$$/stat; echo $$";
    let (id, mut stdout) = Spawn::new("/bin/bash").args(["-c", script]).spawn_piped().unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    id.wait_exit_blocking(SHORT).unwrap();
    let words: Vec<i32> = said.split_whitespace().map(|w| w.parse().unwrap()).collect();
    // 0, 1, 2 and the directory that `ls` itself reads.
    assert_eq!(words[0], 4);
    assert_eq!(words[1], words[2]);
    assert_eq!(words[2], id.pid);
}

#[test]
fn the_way_a_child_ended_is_known_and_it_is_reaped() {
    let id = Spawn::new("sleep").arg("60").spawn().unwrap();
    assert!(id.is_alive());
    assert_eq!(id.wait_exit_blocking(Duration::from_millis(50)).unwrap(), None);
    assert!(id.signal(Signal::TERM).unwrap());
    assert_eq!(id.wait_exit_blocking(SHORT).unwrap(), Some(Exit::Signal(15)));
    assert!(!id.is_alive());
    assert!(!id.kill().unwrap());
    assert!(ProcessId::find(id.pid).is_none(), "still in the process table");
}

#[tokio::test]
async fn a_process_that_is_not_our_child_can_be_awaited_and_stopped() {
    let script = "sleep 60 & echo $!";
    let (shell, mut stdout) = Spawn::new("/bin/bash").args(["-c", script]).spawn_piped().unwrap();
    let mut line = [0; 16];
    let count = stdout.read(&mut line).unwrap();
    let pid = std::str::from_utf8(&line[..count]).unwrap().trim().parse().unwrap();
    shell.wait_exit(SHORT).await.unwrap();
    let orphan = ProcessId::find(pid).unwrap();
    let text = serde_json::to_string(&orphan).unwrap();
    let again: ProcessId = serde_json::from_str(&text).unwrap();
    assert!(again.is_alive());
    again.stop(SHORT).await.unwrap();
    assert!(!again.is_alive());
}

#[tokio::test]
async fn a_child_that_ignores_the_request_is_killed_after_the_grace() {
    let id = Spawn::new("/bin/bash")
        .args(["-c", "trap '' TERM; while :; do sleep 0.1; done"])
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(id.stop(Duration::from_millis(200)).await.unwrap(), Exit::Signal(9));
}

#[test]
fn a_child_dies_with_the_thread_that_started_it_if_asked() {
    let id = std::thread::spawn(|| {
        Spawn::new("sleep").arg("60").die_with_parent(Signal::KILL).spawn().unwrap()
    })
    .join()
    .unwrap();
    assert_eq!(id.wait_exit_blocking(SHORT).unwrap(), Some(Exit::Signal(9)));
}

#[test]
fn a_program_that_does_not_exist_is_an_error_with_its_name() {
    let error = Spawn::new("/nonexistent/program").spawn().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/program"));
}
