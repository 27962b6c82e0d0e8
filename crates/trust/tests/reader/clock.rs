//! A trust service whose clock is ten minutes off, as the real process under `faketime`: it refuses the
//! passport that it gets, says so in its audit log, and goes on where none is needed.

use std::{fs, os::unix::net::UnixStream, path::Path, process::Stdio, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::post};
use model::{
    Digest,
    api::{
        Bytes,
        service::{Certified, Service, ServiceKey},
    },
    keys::admin::SOCKET,
};
use pki::{Ca, CaSpec, Profile, Validity};
use serve::{
    clock::{Clock as _, SystemClock},
    https::{Limits, UnixServer},
    problem::Json,
    shutdown::Shutdown,
};

use crate::anchored::{Running, service, until};

/// Where Debian has the library; the loader puts its own word for `$LIB`.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";
/// As long as passports last where `policy.session_life_s` is at its default.
const LIFE: Duration = Duration::from_secs(600);

fn authority() -> Ca {
    let validity = Validity::backdated(SystemClock.now(), 2 * LIFE, 6 * LIFE);
    let spec = CaSpec { common_name: "authority".to_owned(), path_length: 0, validity };
    Ca::create_root(&spec).unwrap().0
}

/// The agent of the service's server, whose clock is right.
async fn agent(ca: Ca, socket: &Path) -> Shutdown {
    async fn answer(State(ca): State<Arc<Ca>>, Json(key): Json<ServiceKey>) -> Json<Certified> {
        let (host, verdict) = ("a".parse().unwrap(), Digest::sha256([1; 32]));
        let profile = Profile::Service { service: Service::Trust, host, verdict };
        let back = Duration::from_secs(1);
        let validity = Validity::backdated(SystemClock.now(), back, LIFE - 2 * back);
        Json(Certified {
            certificate: Bytes(ca.issue(&profile, &key.spki.0, validity).unwrap().der),
            expires_at: SystemClock.unix_ms() + 598_000,
            anchors: vec![Bytes(ca.certificate().to_vec())],
        })
    }
    let router = Router::new().route("/v1/services/trust/certify", post(answer));
    let server = UnixServer::bind(socket, Limits::default()).await.unwrap();
    let stop = Shutdown::new();
    tokio::spawn(server.run(router.with_state(Arc::new(ca)), stop.clone()));
    stop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_clock_is_off_says_why_it_has_no_passport_and_goes_on_without() {
    if !Path::new("/usr/bin/faketime").exists() {
        println!("Skipped: faketime is not installed");
        return;
    }
    let cases = [("+600s", "passport-expired"), ("-600s", "passport-not-yet-valid")];
    for (off, name) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let stop = agent(authority(), &path("agent.sock")).await;
        let text = "state_dir = 'state'\nlisten = '127.0.0.1:0'\nagent_socket = 'agent.sock'\n\
                    anchor = { by = 'none' }\npeer = { listen = '127.0.0.1:0' }\n\
                    [log]\nfilter = 'warn'\n";
        fs::write(path("trust.toml"), text).unwrap();
        let mut command = service(env!("CARGO_BIN_EXE_vouchsafe-trust"), &path("trust.toml"));
        command.env("LD_PRELOAD", LIBRARY).env("FAKETIME", off);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let running = Running(command.stdout(Stdio::null()).spawn().unwrap());
        until("its audit log does not say why it has no passport", || {
            let files = fs::read_dir(path("state/audit")).into_iter().flatten().flatten();
            let all = files.filter_map(|file| fs::read(file.path()).ok()).flatten();
            let text = String::from_utf8_lossy(&all.collect::<Vec<u8>>()).into_owned();
            text.contains("own-passport") && text.contains(name)
        });
        // Operators need no passport.
        assert!(UnixStream::connect(path("state").join(SOCKET)).is_ok());
        drop(running);
        stop.trigger();
    }
}
