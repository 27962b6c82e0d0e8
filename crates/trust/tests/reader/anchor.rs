//! A state directory that is put back from earlier, against the real processes: the service and a TPM.

use std::{
    fs,
    io::BufReader,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use model::{
    api::Bytes,
    child,
    keys::{
        admin::{AdminReply, AdminRequest, KeeperStatus, ListedBinding, SOCKET},
        order::Prototype,
    },
};
use rustix::process::Signal;
use serve::keys::SigningKey;

use crate::anchored::{PATIENCE, Running, Tpms, refused, restore, service, until};

/// One trust service and the TPMs that it may be anchored in.
struct Site(Tpms);

impl Site {
    fn command(&self, anchor: &str) -> Command {
        let text = format!(
            "state_dir = 'state'\nlisten = '127.0.0.1:0'\naddress_file = 'address'\n\
             anchor = {{ {anchor} }}\n[front]\nopen_queries = true\n[log]\nfilter = 'warn'\n"
        );
        let config = self.0.path("trust.toml");
        fs::write(&config, text).unwrap();
        service(env!("CARGO_BIN_EXE_vouchsafe-trust"), &config)
    }

    /// Has it run at a TPM until it answers operators.
    fn start(&self, tpm: &str) -> Running {
        let mut command = self.command(&self.0.by(tpm));
        let running = Running(command.stdout(Stdio::null()).spawn().unwrap());
        let socket = self.0.path("state").join(SOCKET);
        until("it does not come up", || UnixStream::connect(&socket).is_ok());
        running
    }

    fn refused(&self, anchor: &str) -> String {
        refused(self.command(anchor))
    }

    fn ask(&self, request: &AdminRequest) -> AdminReply {
        let stream = UnixStream::connect(self.0.path("state").join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        child::send(&mut &stream, request).unwrap();
        child::receive(&mut BufReader::new(&stream)).unwrap().unwrap()
    }

    fn status(&self) -> KeeperStatus {
        let reply = self.ask(&AdminRequest::Status);
        let AdminReply::Status(status) = reply else { panic!("{reply:?}") };
        status
    }

    /// The only binding.
    fn binding(&self) -> ListedBinding {
        let reply = self.ask(&AdminRequest::List { after: None, limit: 2 });
        let AdminReply::Listed { mut bindings, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(bindings.len(), 1);
        bindings.remove(0)
    }

    fn revoke(&self) {
        let id = self.binding().binding.id;
        let revoke = AdminRequest::Revoke { id, operator: "alice".to_owned() };
        assert!(matches!(self.ask(&revoke), AdminReply::Revoked { .. }));
    }

    /// Something that is audited; the service may end before it answers.
    fn try_revoke(&self) {
        let Ok(stream) = UnixStream::connect(self.0.path("state").join(SOCKET)) else { return };
        let unknown = AdminRequest::Revoke { id: "00".to_owned(), operator: "alice".to_owned() };
        let _ = child::send(&mut &stream, &unknown);
    }
}

/// A service with one binding, which ran and ended, and the copy that was made then.
fn with_yesterday() -> Option<Site> {
    let site = Site(Tpms::start(&["one", "two"])?);
    let running = site.start("one");
    let key = Some(Bytes(SigningKey::generate().unwrap().spki().to_vec()));
    let bindings = vec![Prototype { key, name: Some("k".to_owned()), ..Prototype::default() }];
    let import = AdminRequest::Import { bindings, operator: "alice".to_owned() };
    assert!(matches!(site.ask(&import), AdminReply::Imported { made: 1, .. }));
    running.end(Signal::TERM);
    site.0.copy("state", "yesterday");
    Some(site)
}

#[test]
fn yesterdays_state_is_refused_audited_and_valid_only_after_a_restore() {
    let Some(site) = with_yesterday() else { return };
    let here = site.0.by("one");
    let running = site.start("one");
    site.revoke();
    let numbered = site.status().crl_number;
    // What was revoked is anchored before it is answered: nothing else moves the counter here.
    running.end(Signal::KILL);
    site.0.copy("state", "today");

    site.0.copy("yesterday", "state");
    assert_eq!(site.refused(&here), "store-rolled-back");
    let audited = site.0.audited();
    assert!(audited.contains("store-rolled-back") && audited.contains("trust-start"), "{audited}");

    // The store alone, beside today's head and log.
    site.0.copy("today", "state");
    fs::copy(site.0.path("yesterday/store.redb"), site.0.path("state/store.redb")).unwrap();
    assert_eq!(site.refused(&here), "store-rolled-back");
    // Without its head, or said to have no anchor, it is not a new store.
    site.0.copy("yesterday", "state");
    fs::remove_file(site.0.path("state/head.json")).unwrap();
    assert_eq!(site.refused(&here), "store-head-missing");
    assert_eq!(site.refused("by = 'none'"), "store-anchor-missing");

    // Today's goes on, though it was killed; the key is revoked.
    site.0.copy("today", "state");
    let running = site.start("one");
    assert!(site.binding().revoked_at.is_some());
    running.end(Signal::TERM);

    // An operator takes yesterday's for the newest: that is said, and CRLs are numbered anew.
    site.0.copy("yesterday", "state");
    restore(site.command(&here), "alice");
    let running = site.start("one");
    assert!(site.binding().revoked_at.is_none());
    assert!(site.status().crl_number > numbered.max(1_700_000_000));
    running.end(Signal::TERM);
    assert!(site.0.audited().contains("store-restored"));
    // And today's is the old one now.
    site.0.copy("today", "state");
    assert_eq!(site.refused(&here), "store-rolled-back");
}

#[test]
fn a_state_does_not_start_at_another_tpm_nor_two_copies_at_one() {
    let Some(site) = with_yesterday() else { return };
    let there = site.0.by("two");
    assert_eq!(site.refused(&there), "store-anchor-missing");
    restore(site.command(&there), "alice");
    let mut running = site.start("two");
    // The counter moves without it: as if a copy of it ran elsewhere.
    site.0.copy("state", "twin");
    let text = fs::read_to_string(site.0.path("trust.toml")).unwrap();
    let text = text.replace("'state'", "'twin'").replace("'address'", "'twin-address'");
    fs::write(site.0.path("twin.toml"), text).unwrap();
    let twin = service(env!("CARGO_BIN_EXE_vouchsafe-trust"), &site.0.path("twin.toml"));
    restore(twin, "mallory");
    site.try_revoke();
    assert_eq!(running.ended("it goes on beside a copy of itself"), Some(3));
    assert!(!site.0.path("state/head.json").exists(), "its head is out of use");
}
