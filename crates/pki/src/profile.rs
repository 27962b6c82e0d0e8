//! The kinds of certificate that a [`crate::Ca`] issues, and what is in each.
//!
//! | profile | subject | names | key usage | extended key usage |
//! |---|---|---|---|---|
//! | `tls-server` | CN | DNS, IP | digitalSignature | serverAuth |
//! | `client` | CN | operator URI | digitalSignature | clientAuth |
//! | `host-session` | CN | host and verdict URIs | digitalSignature | clientAuth |
//! | `service` | CN | service and verdict URIs | digitalSignature | serverAuth, clientAuth |
//! | `host-ak` | CN | host URI | digitalSignature | 2.23.133.8.3 |
//! | `vtpm-ak` | CN | VM-and-epoch and host-ref URIs | digitalSignature | 2.23.133.8.3 |
//! | `vtpm-ek` | empty | TPM attributes, VM URI (critical) | keyAgreement or keyEncipherment | 2.23.133.8.1 |
//! | `ocsp-responder` | CN | | digitalSignature | OCSPSigning, with id-pkix-ocsp-nocheck |
//! | `user` | CN, O | e-mail, DNS, URI, IP | as asked: signature, encryption, exchange | - |
//! | `host-ek` | empty | TPM attributes (critical) | the same | 2.23.133.8.1 |

use std::net::IpAddr;

use der::{Encode as _, asn1::Ia5String};
use model::{
    Digest, Epoch, HostId, VmId,
    api::service::{Service, ServiceName},
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use x509_cert::ext::pkix::name::GeneralName;

use crate::{Identity, IssueError, ca::KeyKind, tcg, tcg::TpmModel};

mod user;

pub use user::{KeyUses, UserCert, UserName};

const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];
const OCSP_NO_CHECK: [u64; 10] = [1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
const SUBJECT_DIRECTORY_ATTRIBUTES: [u64; 4] = [2, 5, 29, 9];

/// A kind of certificate with the names that go into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A TLS server, reached under these names and addresses.
    TlsServer {
        /// Common name, for people.
        name: String,
        /// DNS names.
        dns: Vec<String>,
        /// IP addresses.
        ip: Vec<IpAddr>,
    },
    /// An operator's TLS client certificate.
    Client {
        /// The operator's name (rules as for a [`HostId`]).
        operator: String,
    },
    /// A host's short-lived TLS client certificate, worth as much as the verdict it names.
    HostSession {
        /// The host.
        host: HostId,
        /// Digest of the verdict.
        verdict: Digest,
    },
    /// A service's short-lived passport, for both ends of TLS (or a server's alone): worth as much as the verdict on its
    /// host. It names no host by itself, so it never serves as a host's session.
    Service {
        /// Which service.
        service: Service,
        /// The host that it runs on.
        host: HostId,
        /// Digest of the verdict.
        verdict: Digest,
    },
    /// The AK of an enrolled host.
    HostAk {
        /// The host.
        host: HostId,
    },
    /// The EK of a VM's vTPM.
    VtpmEk {
        /// The software TPM.
        tpm: TpmModel,
        /// The VM.
        vm: VmId,
    },
    /// The virtual AK of a VM (host-owned): which VM, in which epoch, on which host, since when
    /// (the validity's start).
    VtpmAk {
        /// The VM.
        vm: VmId,
        /// Its epoch.
        epoch: Epoch,
        /// The host, as a reference that only the authority resolves.
        host: [u8; 16],
    },
    /// A key of a user of the cloud, for what it was registered for.
    User(UserCert),
    /// A responder that answers for this CA by OCSP. Clients do not ask whether it was revoked, so
    /// it is to be short-lived.
    OcspResponder {
        /// Common name, for people.
        name: String,
    },
    /// The EK of a lab host's software TPM, signed by the lab's EK CA.
    HostEk {
        /// The software TPM.
        tpm: TpmModel,
    },
}

impl Profile {
    /// Kebab-case name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TlsServer { .. } => "tls-server",
            Self::Client { .. } => "client",
            Self::HostSession { .. } => "host-session",
            Self::Service { .. } => "service",
            Self::HostAk { .. } => "host-ak",
            Self::VtpmEk { .. } => "vtpm-ek",
            Self::VtpmAk { .. } => "vtpm-ak",
            Self::OcspResponder { .. } => "ocsp-responder",
            Self::User(_) => "user",
            Self::HostEk { .. } => "host-ek",
        }
    }

    /// Everything of the certificate but validity, serial number and keys.
    pub(crate) fn params(&self, key: KeyKind) -> Result<CertificateParams, IssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        // Writes the subject key identifier as well.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match self {
            Self::TlsServer { name, dns, ip } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                for name in dns {
                    params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
                }
                params.subject_alt_names.extend(ip.iter().copied().map(SanType::IpAddress));
            }
            Self::Client { operator } => {
                let identity = Identity::Operator(operator.clone());
                client(&mut params, operator, &[identity])?;
            }
            Self::HostSession { host, verdict } => {
                let identities = [Identity::Host(host.clone()), Identity::Verdict(*verdict)];
                client(&mut params, host.as_str(), &identities)?;
            }
            Self::Service { service, host, verdict } => {
                let name = ServiceName { service: *service, host: host.clone() };
                let shown = format!("vouchsafe-{service} on {host}");
                let identities = [Identity::Service(name), Identity::Verdict(*verdict)];
                named(&mut params, &shown, &identities)?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                if !service.only_serves() {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
            }
            Self::HostAk { host } => {
                attestation_key(&mut params, host.as_str(), &[Identity::Host(host.clone())])?;
            }
            Self::VtpmAk { vm, epoch, host } => {
                let identities = [Identity::Vm(vm.clone(), Some(*epoch)), Identity::HostRef(*host)];
                attestation_key(&mut params, vm.as_str(), &identities)?;
            }
            Self::VtpmEk { tpm, vm } => {
                endorsement_key(&mut params, tpm, Some(&Identity::Vm(vm.clone(), None)), key)?;
            }
            Self::User(user) => user.fill(&mut params, key)?,
            Self::OcspResponder { name } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                // An ASN.1 NULL (RFC 6960, section 4.2.2.2.1).
                let no_check = CustomExtension::from_oid_content(&OCSP_NO_CHECK, vec![5, 0]);
                params.custom_extensions = vec![no_check];
            }
            Self::HostEk { tpm } => endorsement_key(&mut params, tpm, None, key)?,
        }
        Ok(params)
    }
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, IssueError> {
    text.try_into().map_err(|_| IssueError::Name(text.to_owned()))
}

fn named(
    params: &mut CertificateParams,
    name: &str,
    identities: &[Identity],
) -> Result<(), IssueError> {
    params.distinguished_name.push(DnType::CommonName, name);
    for identity in identities {
        let text = identity.to_string();
        // What could not be read back must not be issued.
        if text.parse().as_ref() != Ok(identity) {
            return Err(IssueError::Name(name.to_owned()));
        }
        params.subject_alt_names.push(SanType::URI(ia5(&text)?));
    }
    Ok(())
}

fn client(
    params: &mut CertificateParams,
    name: &str,
    identities: &[Identity],
) -> Result<(), IssueError> {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    named(params, name, identities)
}

fn attestation_key(
    params: &mut CertificateParams,
    name: &str,
    identities: &[Identity],
) -> Result<(), IssueError> {
    params.extended_key_usages = vec![other_usage(&tcg::AK_CERTIFICATE)];
    named(params, name, identities)
}

/// The subject stays empty, as the TCG's profile recommends, so the names are critical (RFC 5280,
/// section 4.2.1.6).
fn endorsement_key(
    params: &mut CertificateParams,
    tpm: &TpmModel,
    identity: Option<&Identity>,
    key: KeyKind,
) -> Result<(), IssueError> {
    params.key_usages = vec![match key {
        KeyKind::Ec => KeyUsagePurpose::KeyAgreement,
        KeyKind::Rsa => KeyUsagePurpose::KeyEncipherment,
    }];
    params.extended_key_usages = vec![other_usage(&tcg::EK_CERTIFICATE)];
    let mut names = vec![GeneralName::DirectoryName(tpm.to_name().map_err(IssueError::Encode)?)];
    if let Some(identity) = identity {
        let uri = Ia5String::new(&identity.to_string()).map_err(IssueError::Encode)?;
        names.push(GeneralName::UniformResourceIdentifier(uri));
    }
    let names = names.to_der().map_err(IssueError::Encode)?;
    let mut names = CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, names);
    names.set_criticality(true);
    let specification = tcg::SPECIFICATION.to_vec();
    params.custom_extensions = vec![
        names,
        CustomExtension::from_oid_content(&SUBJECT_DIRECTORY_ATTRIBUTES, specification),
    ];
    Ok(())
}

fn other_usage(oid: &der::asn1::ObjectIdentifier) -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(oid.arcs().map(u64::from).collect())
}
