//! The configuration files of a lab's services.

use std::{net::SocketAddr, path::Path};

use model::HostId;

use super::{
    components::{Distribution, Programs},
    layout::Layout,
    record::CentreRecord,
};
use crate::{args::Accel, client::ClientFile, output::Failure};

/// Sessions of lab hosts, seconds: long enough that a stopped authority is noticed by the lease.
const SESSION_S: u64 = 600;

/// The only tenant of a lab's centre.
const TENANT: &str = "lab";

/// Extends of one boot that a lab's vTPM records.
const MAX_EXTENDS: u32 = 5_000;

/// `authority.toml`.
///
/// # Errors
/// [`Failure`] if a path is not UTF-8.
pub(super) fn authority(
    layout: &Layout,
    tpm: &str,
    listen: &str,
    lease_seconds: u64,
) -> Result<String, Failure> {
    let dir = layout.authority();
    let keys = layout.keys();
    text(&serde_json::json!({
        "state_dir": dir.join("state"),
        "listen": listen,
        "address_file": layout.run().join("authority.address"),
        "tpm": tpm,
        "ek_roots": [keys.join("ek-ca.pem")],
        "allow_software_tpm": true,
        "reference_values": dir.join("reference.json"),
        "endorsers": {"keys": [keys.join("endorser.pub")], "needed": 1},
        "policy": {"lease_s": lease_seconds, "session_life_s": SESSION_S.min(lease_seconds)},
    }))
}

/// What a host's configuration names.
#[derive(Debug)]
pub(super) struct HostPaths<'a> {
    pub(super) layout: &'a Layout,
    pub(super) name: &'a HostId,
    pub(super) dir: &'a Path,
    pub(super) event_log: &'a Path,
    pub(super) token: &'a Path,
    pub(super) programs: &'a Programs,
    pub(super) distribution: &'a Distribution,
    pub(super) authority: &'a ClientFile,
    pub(super) accel: Accel,
}

/// `host.toml`.
///
/// # Errors
/// [`Failure`] if a path is not UTF-8.
pub(super) fn host(paths: &HostPaths<'_>) -> Result<String, Failure> {
    let layout = paths.layout;
    let socket = layout.tpm_socket(&format!("host-{}", paths.name));
    text(&serde_json::json!({
        "name": paths.name,
        "state_dir": paths.dir.join("state"),
        "run_dir": layout.run().join(paths.name.as_str()),
        "agent_socket": layout.agent_socket(paths.name),
        "tpm": tpm::Address::Unix(socket).to_string(),
        "event_log": paths.event_log,
        "token_file": paths.token,
        "accel": paths.accel.word(),
        "authority": {"url": paths.authority.url, "ca_file": paths.authority.ca_file},
        // A translated guest takes a minute to reach the default.
        "limits": {"max_extends": MAX_EXTENDS},
        "binaries": {
            "vtpm": paths.programs.vtpm,
            "disk": paths.programs.disk,
            "qemu": paths.distribution.qemu,
        },
        "firmware": {
            "code": paths.distribution.ovmf_code,
            "vars": paths.distribution.ovmf_vars,
        },
    }))
}

/// `centre.toml`: one PKI, the centre's own CA, and one tenant.
///
/// # Errors
/// [`Failure`] if a path is not UTF-8.
pub(super) fn centre(
    layout: &Layout,
    host: &HostId,
    listen: SocketAddr,
) -> Result<String, Failure> {
    let dir = layout.centre();
    text(&serde_json::json!({
        "state_dir": dir.join("state"),
        "listen": listen,
        "address_file": dir.join("address"),
        "agent_socket": layout.agent_socket(host),
        "centre": {
            "domain": [{
                "name": "own",
                "provider": {"own": {"ca_name": "Vouchsafe lab centre"}},
            }],
            "tenant": [{"name": TENANT, "domains": ["own"]}],
        },
    }))
}

/// `trust.toml`: unlike outside of a lab, questions are answered to anyone, pass phrases may be
/// handed out, and orders take one phase while it is calm.
///
/// # Errors
/// [`Failure`] if a path is not UTF-8.
pub(super) fn trust(
    dir: &Path,
    (listen, peer): (SocketAddr, SocketAddr),
    agent_socket: &Path,
    centre: Option<&CentreRecord>,
) -> Result<String, Failure> {
    let keeper = match centre {
        None => serde_json::json!({
            "pass_phrases": true,
            "any_use_with": true,
            "generate_keys": true,
            "crl_url": format!("http://{listen}/crl.der"),
            "ocsp_url": format!("http://{listen}/ocsp"),
        }),
        Some(centre) => serde_json::json!({
            "manner": "hybrid",
            "pass_phrases": true,
            "any_use_with": true,
            "centre": {
                "url": centre.url,
                "tenant": TENANT,
                "domain": "own",
            },
        }),
    };
    text(&serde_json::json!({
        "state_dir": dir.join("state"),
        "listen": listen,
        "address_file": dir.join("address"),
        "agent_socket": agent_socket,
        "peer": {
            "listen": peer,
            "address_file": dir.join("peer-address"),
        },
        "front": {"open_queries": true, "two_phase": "under-load", "sha1_in_macs": true},
        "keeper": keeper,
    }))
}

fn text(value: &serde_json::Value) -> Result<String, Failure> {
    let table = toml::Table::try_from(value)?;
    Ok(format!("# Written by `vouchsafe lab up`.\n{}", toml::to_string(&table)?))
}
