//! The actor: jobs in turn, nothing left behind, and the TPM free between jobs.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, SystemTime},
};

use tpm::{Actor, Auth, AuthValue, Hierarchy, TpmError, TransportError, template};

use crate::support::Swtpm;

#[test]
fn jobs_of_many_threads_run_one_after_the_other_and_leave_nothing() {
    let Some(swtpm) = Swtpm::start() else { return };
    let actor = Actor::start(swtpm.address()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let actor = actor.clone();
            thread::spawn(move || {
                for _ in 0..5 {
                    let made = actor.run(|tpm| {
                        let empty = AuthValue::empty();
                        let kind = template::srk_p256();
                        tpm.create_primary(Hierarchy::Owner, Auth::none(), &kind, &empty)
                    });
                    made.unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let left = actor.run(tpm::Tpm::transient_handles).unwrap();
    assert!(left.is_empty());
    assert_eq!(swtpm.open().random(1).unwrap().len(), 1);
}

#[test]
fn a_job_waits_while_another_client_holds_the_tpm() {
    let Some(swtpm) = Swtpm::start() else { return };
    let actor = Actor::start(swtpm.address()).unwrap();
    let holder = swtpm.open();
    let waiting = actor.submit(|tpm| tpm.random(8)).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_recv().is_err());
    drop(holder);
    assert_eq!(waiting.recv().unwrap().unwrap().len(), 8);
}

#[test]
fn a_tpm_that_is_never_let_go_is_reported_as_busy() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut holder = UnixStream::connect(swtpm.socket()).unwrap();
    holder.write_all(&[]).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test measures real time")]
    let begun = SystemTime::now();
    let actor = Actor::start(swtpm.address()).unwrap();
    let refused = actor.run(|tpm| tpm.random(8)).unwrap_err();
    assert!(matches!(refused, TpmError::Transport(TransportError::Busy)), "{refused}");
    assert!(begun.elapsed().unwrap() < Duration::from_secs(120));
}

#[test]
fn a_tpm_that_is_not_there_is_an_error_that_names_it() {
    let actor = Actor::start("unix:/nonexistent/tpm".parse::<tpm::Address>().unwrap()).unwrap();
    let refused = actor.run(|tpm| tpm.random(8)).unwrap_err();
    let TpmError::Transport(error @ TransportError::Open { .. }) = refused else { panic!() };
    assert!(error.to_string().contains("unix:/nonexistent/tpm"));
}
