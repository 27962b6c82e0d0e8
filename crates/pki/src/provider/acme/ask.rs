//! What is asked of the CA: names of hosts, with the request of the key's holder.

use der::Decode as _;
use x509_cert::request::CertReq;

use super::{
    super::{ProviderError, remote::Bytes},
    MAX_NAMES, State, Wanted,
    wire::Identifier,
};
use crate::{IssueError, Profile, RevocationReason, UserName};

pub(super) fn wanted(
    profile: &Profile,
    spki: &[u8],
    request: Option<&[u8]>,
) -> Result<State, ProviderError> {
    let request = request.ok_or(ProviderError::Unsupported("it wants the subject's request"))?;
    let parsed = CertReq::from_der(request).map_err(IssueError::Encode);
    let own = parsed.map_err(ProviderError::Issue)?.info.public_key;
    let own =
        der::Encode::to_der(&own).map_err(IssueError::Encode).map_err(ProviderError::Issue)?;
    if own != spki {
        return Err(ProviderError::Issue(IssueError::SubjectKey));
    }
    let names = names(profile)?;
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(ProviderError::Unsupported("it certifies 1 to 100 names of hosts"));
    }
    let (spki, request) = (Bytes(spki.to_vec()), Bytes(request.to_vec()));
    Ok(State::Ordering(Wanted { names, spki, request }))
}

/// The names of hosts and addresses in a profile that has no others.
fn names(profile: &Profile) -> Result<Vec<Identifier>, ProviderError> {
    let one = |kind: &str, value: String| Identifier { kind: kind.to_owned(), value };
    let dns = |name: &String| one("dns", name.to_ascii_lowercase());
    let hosts = Err(ProviderError::Unsupported("it certifies names of hosts only"));
    match profile {
        Profile::TlsServer { dns: names, ip, .. } => {
            let addresses = ip.iter().map(|address| one("ip", address.to_string()));
            Ok(names.iter().map(dns).chain(addresses).collect())
        }
        Profile::User(user) => {
            let mut all = Vec::new();
            for name in &user.names {
                all.push(match name {
                    UserName::Dns(name) => dns(name),
                    UserName::Ip(address) => one("ip", address.to_string()),
                    UserName::Email(_) | UserName::Uri(_) => return hosts,
                });
            }
            Ok(all)
        }
        Profile::Client { .. }
        | Profile::HostSession { .. }
        | Profile::Service { .. }
        | Profile::HostAk { .. }
        | Profile::VtpmEk { .. }
        | Profile::VtpmAk { .. }
        | Profile::OcspResponder { .. }
        | Profile::HostEk { .. } => hosts,
    }
}

pub(super) fn reason(reason: RevocationReason) -> u32 {
    reason.code() as u32
}
