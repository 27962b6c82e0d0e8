//! The services that have operators, a state and an audit log of their own: trust services and the
//! key-management centre. Asked over the socket in their state directory, as their own user.

use std::{
    fs,
    io::BufReader,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    HostId,
    centre::{self, CentreCommand, CentreReply},
    child,
    keys::admin::{self, AdminReply, AdminRequest},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{args::Scope, lab::layout::Layout, output::Failure};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Their configurations, if none is named.
const TRUST: &str = "/etc/vouchsafe/trust.toml";
const CENTRE: &str = "/etc/vouchsafe/centre.toml";

/// A service that is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    /// The trust service of this host, in a lab the first without one.
    Trust(Option<&'a HostId>),
    /// The centre.
    Centre,
}

impl Asked<'_> {
    /// Its program, for whoever is to look whether it runs.
    const fn program(self) -> &'static str {
        match self {
            Self::Trust(_) => "vouchsafe-trust",
            Self::Centre => "vouchsafe-centre",
        }
    }

    /// Its state directory.
    ///
    /// # Errors
    /// [`Failure`] if there is no such service, or its configuration cannot be read.
    pub(super) fn state(self, scope: &Scope) -> Result<PathBuf, Failure> {
        let Some(dir) = &scope.lab else { return self.configured(scope.config.as_deref()) };
        let layout = Layout::open(dir)?;
        let dir = match self {
            Self::Trust(host) => {
                let first: HostId = "a".parse()?;
                layout.trust(host.unwrap_or(&first))
            }
            Self::Centre => layout.centre(),
        };
        if dir.is_dir() {
            return Ok(dir.join("state"));
        }
        Err(match self {
            Self::Trust(Some(host)) => Failure::error(
                format!("the lab has no host {host}"),
                "`vouchsafe host list` shows its hosts",
            ),
            Self::Trust(None) => Failure::error(
                format!("{} is no lab: it has no host", layout.dir.display()),
                "`vouchsafe lab up` makes them",
            ),
            Self::Centre => Failure::error(
                "the lab has no key-management centre",
                "`vouchsafe lab up --manner hybrid` in a new directory has one",
            ),
        })
    }

    fn configured(self, file: Option<&Path>) -> Result<PathBuf, Failure> {
        let default = match self {
            Self::Trust(_) => TRUST,
            Self::Centre => CENTRE,
        };
        if file.is_none() && !Path::new(default).exists() {
            return Err(Failure::Usage(format!(
                "say which {}: --lab DIR, or --config FILE with its configuration, or write {default}",
                self.program()
            )));
        }
        let file = file.unwrap_or(Path::new(default));
        let hint = format!("--config names the configuration of {}", self.program());
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::error(format!("{}: {error}", file.display()), &*hint))?;
        let config: toml::Table = toml::from_str(&text)?;
        let state = config.get("state_dir").and_then(toml::Value::as_str).ok_or_else(|| {
            Failure::error(format!("{}: there is no `state_dir`", file.display()), &*hint)
        })?;
        Ok(file.parent().unwrap_or(Path::new(".")).join(state))
    }

    /// Has it sign a checkpoint of its audit log, and write both out; the folder where they are.
    ///
    /// # Errors
    /// [`Failure`] if it does not.
    pub(super) fn export_audit(self, state: &Path) -> Result<PathBuf, Failure> {
        match self {
            Self::Trust(_) => {
                let reply = ask(self, &state.join(admin::SOCKET), &AdminRequest::ExportAudit)?;
                let AdminReply::AuditExported { dir, .. } = reply else {
                    return Err(super::key::unexpected(reply));
                };
                Ok(dir.into())
            }
            Self::Centre => {
                let reply = ask(self, &state.join(centre::SOCKET), &CentreCommand::ExportAudit)?;
                let CentreReply::AuditExported { directory, .. } = reply else {
                    return Err(Failure::error(
                        format!("the centre did not write its log out: {reply:?}"),
                        "see its own log; is it this version?",
                    ));
                };
                Ok(directory.into())
            }
        }
    }
}

/// Asks a service over its socket.
///
/// # Errors
/// [`Failure`] if it does not answer.
pub(super) fn ask<Q: Serialize, A: DeserializeOwned>(
    service: Asked<'_>,
    socket: &Path,
    request: &Q,
) -> Result<A, Failure> {
    let program = service.program();
    let stream = UnixStream::connect(socket).map_err(|error| {
        Failure::error(
            format!("{}: {error}", socket.display()),
            format!("is {program} running, and are you its user?"),
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    child::send(&mut &stream, request)?;
    let reply = child::receive(&mut BufReader::new(&stream))?;
    reply.ok_or_else(|| Failure::error(format!("{program} closed the connection"), "see its log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(lab: Option<&Path>, config: Option<&Path>) -> Scope {
        Scope { lab: lab.map(Path::to_owned), config: config.map(Path::to_owned), json: false }
    }

    fn said(failure: Failure) -> String {
        match failure {
            Failure::Error { message, hint } => format!("{message} | {hint}"),
            Failure::Usage(message) => message,
            Failure::Refused { name, .. } => panic!("{name}"),
        }
    }

    #[test]
    fn a_host_that_the_lab_does_not_have_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("hosts/a/trust")).unwrap();
        let lab = scope(Some(dir.path()), None);
        let here: HostId = "a".parse().unwrap();
        let state = Asked::Trust(Some(&here)).state(&lab).unwrap();
        assert!(state.ends_with("hosts/a/trust/state"));
        assert_eq!(Asked::Trust(None).state(&lab).unwrap(), state);
        let elsewhere: HostId = "zz".parse().unwrap();
        let no = said(Asked::Trust(Some(&elsewhere)).state(&lab).unwrap_err());
        assert!(no.contains("has no host zz"), "{no}");
        let no = said(Asked::Centre.state(&lab).unwrap_err());
        assert!(no.contains("no key-management centre"), "{no}");
    }

    #[test]
    fn without_a_place_it_says_what_to_say() {
        let no = said(Asked::Trust(None).state(&scope(None, None)).unwrap_err());
        assert!(no.contains("--lab DIR") && no.contains(TRUST), "{no}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("centre.toml");
        fs::write(&file, "state_dir = 's'\n").unwrap();
        let state = Asked::Centre.state(&scope(None, Some(&file))).unwrap();
        assert_eq!(state, dir.path().join("s"));
        fs::write(&file, "").unwrap();
        let no = said(Asked::Centre.state(&scope(None, Some(&file))).unwrap_err());
        assert!(no.contains("state_dir") && no.contains("vouchsafe-centre"), "{no}");
    }
}
