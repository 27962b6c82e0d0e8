//! Who or what a certificate of ours stands for, as URIs in its subject alternative name.
//!
//! ```text
//! urn:vouchsafe:host:<id>                 a host (session and AK certificates)
//! urn:vouchsafe:verdict:<alg>:<hex>       digest of the verdict that a session rests on
//! urn:vouchsafe:service:<name>:<host>     a service of a host (passports; never a host itself)
//! urn:vouchsafe:operator:<name>           a person or tool that operates the authority
//! urn:vouchsafe:vm:<id>                   a VM (EK certificate of its vTPM)
//! urn:vouchsafe:vm:<id>:epoch:<n>         a VM in one epoch (AK certificate of its vTPM)
//! urn:vouchsafe:host-ref:<hex>            a host as an opaque reference: relying parties cannot
//!                                         link the VMs of one host by it
//! ```

use std::{fmt, str::FromStr};

use model::{Digest, Epoch, HostId, VmId, api::service::ServiceName};

const PREFIX: &str = "urn:vouchsafe:";

/// One URI of ours. It means something only in a certificate verified to an anchor of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A host.
    Host(HostId),
    /// The verdict that a host's session rests on.
    Verdict(Digest),
    /// A service of a host.
    Service(ServiceName),
    /// An operator, by name.
    Operator(String),
    /// A VM, in one epoch if one is given.
    Vm(VmId, Option<Epoch>),
    /// A host, told only by a reference that the authority can resolve.
    HostRef([u8; 16]),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Self::Host(host) => write!(f, "host:{host}"),
            Self::Verdict(digest) => write!(f, "verdict:{digest}"),
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Operator(name) => write!(f, "operator:{name}"),
            Self::Vm(vm, None) => write!(f, "vm:{vm}"),
            Self::Vm(vm, Some(epoch)) => write!(f, "vm:{vm}:epoch:{}", epoch.0),
            Self::HostRef(reference) => {
                f.write_str("host-ref:")?;
                reference.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Not a URI of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity of ours")]
pub struct NotOurs;

impl FromStr for Identity {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(PREFIX).ok_or(NotOurs)?;
        let (kind, value) = rest.split_once(':').ok_or(NotOurs)?;
        let identity = match kind {
            "host" => Self::Host(value.parse().map_err(|_| NotOurs)?),
            "verdict" => Self::Verdict(value.parse().map_err(|_| NotOurs)?),
            "service" => {
                let (service, host) = value.split_once(':').ok_or(NotOurs)?;
                Self::Service(ServiceName {
                    service: service.parse().map_err(|_| NotOurs)?,
                    host: host.parse().map_err(|_| NotOurs)?,
                })
            }
            // An operator's name follows the same rule as any other name.
            "operator" => Self::Operator(value.parse::<HostId>().map_err(|_| NotOurs)?.to_string()),
            "vm" => match value.split_once(":epoch:") {
                None => Self::Vm(value.parse().map_err(|_| NotOurs)?, None),
                Some((vm, epoch)) => {
                    let epoch = Epoch(epoch.parse().map_err(|_| NotOurs)?);
                    Self::Vm(vm.parse().map_err(|_| NotOurs)?, Some(epoch))
                }
            },
            "host-ref" => {
                let id: model::GrantId = value.parse().map_err(|_| NotOurs)?;
                Self::HostRef(id.0)
            }
            _ => return Err(NotOurs),
        };
        // One text for each identity: no leading zeros, no upper-case digits.
        if identity.to_string() == text { Ok(identity) } else { Err(NotOurs) }
    }
}

#[cfg(test)]
mod tests {
    use model::api::service::Service;

    use super::*;

    #[test]
    fn identities_round_trip_and_have_one_text_each() {
        let all = [
            Identity::Host("a".parse().unwrap()),
            Identity::Verdict(Digest::sha256([1; 32])),
            Identity::Service(ServiceName { service: Service::Centre, host: "a".parse().unwrap() }),
            Identity::Operator("admin".to_owned()),
            Identity::Vm("web-01".parse().unwrap(), None),
            Identity::Vm("web-01".parse().unwrap(), Some(Epoch(7))),
            Identity::HostRef([0xab; 16]),
        ];
        for identity in all {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        for bad in [
            "urn:vouchsafe:vm:a:epoch:07",
            "urn:vouchsafe:vm:a:epoch:",
            "urn:vouchsafe:host:A",
            "urn:vouchsafe:host",
            "urn:vouchsafe:service:trust",
            "urn:vouchsafe:service:root:a",
            "urn:other:host:a",
            "urn:vouchsafe:host-ref:ABABABABABABABABABABABABABABABAB",
        ] {
            assert_eq!(bad.parse::<Identity>(), Err(NotOurs), "{bad}");
        }
    }
}
