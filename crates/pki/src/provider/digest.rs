//! What a request is recognised by: a digest over its parts in a fixed form, each with its length
//! before it, so that no two requests read alike and no release reads one otherwise.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use super::{Ask, Enrolment, Renewal, RevocationAsk};
use crate::{Profile, UserCert, UserName, Validity, tcg::TpmModel};

/// Collects parts.
struct Parts(Context);

/// The digest of a request.
pub(super) fn of(ask: &Ask) -> [u8; 32] {
    let mut parts = Parts(Context::new(&SHA256));
    match ask {
        Ask::Enrol(Enrolment { profile, spki, validity, request }) => {
            parts.add(b"enrol");
            parts.add(spki);
            parts.certificate(profile, *validity, request.as_deref());
        }
        Ask::Renew(Renewal { certificate, profile, validity, request }) => {
            parts.add(b"renew");
            parts.add(certificate);
            parts.certificate(profile, *validity, request.as_deref());
        }
        Ask::Revoke(RevocationAsk { certificate, reason }) => {
            parts.add(b"revoke");
            parts.add(certificate);
            let reason = reason.code() as u32;
            parts.add(&reason.to_be_bytes());
        }
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(parts.0.finish().as_ref()) {
        *to = *from;
    }
    out
}

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(part);
    }

    fn text(&mut self, text: &str) {
        self.add(text.as_bytes());
    }

    /// What may be absent: how many there are, then each.
    fn all<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.add(&u64::try_from(parts.len()).unwrap_or(u64::MAX).to_be_bytes());
        parts.for_each(|part| self.add(part));
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.all(text.map(str::as_bytes).into_iter());
    }

    fn address(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(&address.octets()),
            IpAddr::V6(address) => self.add(&address.octets()),
        }
    }

    fn certificate(&mut self, profile: &Profile, validity: Validity, request: Option<&[u8]>) {
        self.profile(profile);
        for moment in [validity.not_before, validity.not_after] {
            self.add(&moment.unix_timestamp().to_be_bytes());
        }
        self.all(request.into_iter());
    }

    fn profile(&mut self, profile: &Profile) {
        self.text(profile.name());
        match profile {
            Profile::TlsServer { name, dns, ip } => {
                self.text(name);
                self.all(dns.iter().map(String::as_bytes));
                ip.iter().for_each(|address| self.address(address));
                self.add(b"end");
            }
            Profile::Client { operator: name } | Profile::OcspResponder { name } => self.text(name),
            Profile::HostSession { host, verdict } => {
                self.text(host.as_str());
                self.text(&verdict.to_string());
            }
            Profile::Service { service, host, verdict } => {
                self.text(service.as_str());
                self.text(host.as_str());
                self.text(&verdict.to_string());
            }
            Profile::HostAk { host } => self.text(host.as_str()),
            Profile::VtpmEk { tpm, vm } => {
                self.tpm(tpm);
                self.text(vm.as_str());
            }
            Profile::VtpmAk { vm, epoch, host } => {
                self.text(vm.as_str());
                self.add(&epoch.0.to_be_bytes());
                self.add(host);
            }
            Profile::User(user) => self.user(user),
            Profile::HostEk { tpm } => self.tpm(tpm),
        }
    }

    fn tpm(&mut self, tpm: &TpmModel) {
        let TpmModel { manufacturer, model, version } = tpm;
        [manufacturer, model, version].into_iter().for_each(|text| self.text(text));
    }

    fn user(&mut self, user: &UserCert) {
        let UserCert { name, organization, names, uses, crl_url, ocsp_url } = user;
        self.text(name);
        self.maybe(organization.as_deref());
        for name in names {
            match name {
                UserName::Email(text) => self.named(b"email", text),
                UserName::Dns(text) => self.named(b"dns", text),
                UserName::Uri(text) => self.named(b"uri", text),
                UserName::Ip(address) => {
                    self.add(b"ip");
                    self.address(address);
                }
            }
        }
        let uses = [uses.signature, uses.encryption, uses.exchange].map(u8::from);
        self.add(b"uses");
        self.add(&uses);
        self.maybe(crl_url.as_deref());
        self.maybe(ocsp_url.as_deref());
    }

    fn named(&mut self, form: &[u8], text: &str) {
        self.add(form);
        self.text(text);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::RevocationReason;

    fn ask(names: &[UserName], spki: &[u8], request: Option<Vec<u8>>) -> [u8; 32] {
        let user = UserCert { names: names.to_vec(), ..UserCert::default() };
        let at = datetime!(2026-06-01 12:00 UTC);
        let validity = Validity { not_before: at, not_after: at };
        let profile = Profile::User(user);
        of(&Ask::Enrol(Enrolment { profile, spki: spki.to_vec(), validity, request }))
    }

    #[test]
    fn requests_that_differ_in_anything_have_other_digests() {
        let dns = |text: &str| UserName::Dns(text.to_owned());
        let uri = |text: &str| UserName::Uri(text.to_owned());
        let all = [
            ask(&[], b"key", None),
            ask(&[], b"other", None),
            ask(&[], b"key", Some(Vec::new())),
            ask(&[], b"key", Some(b"request".to_vec())),
            ask(&[dns("a"), dns("b")], b"key", None),
            ask(&[dns("b"), dns("a")], b"key", None),
            ask(&[dns("ab")], b"key", None),
            ask(&[uri("ab")], b"key", None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(all[0], ask(&[], b"key", None));
    }

    #[test]
    fn the_digest_of_a_request_is_the_same_in_every_release() {
        let certificate = b"certificate".to_vec();
        let reason = RevocationReason::KeyCompromise;
        let digest = of(&Ask::Revoke(RevocationAsk { certificate, reason }));
        // SHA-256 of 6 "revoke" 11 "certificate" 4 1, lengths in 8 bytes and the reason in 4.
        let mut text = Vec::new();
        for part in [b"revoke".as_slice(), b"certificate", &[0, 0, 0, 1]] {
            text.extend((part.len() as u64).to_be_bytes());
            text.extend(part);
        }
        assert_eq!(digest, aws_lc_rs::digest::digest(&SHA256, &text).as_ref());
    }
}
