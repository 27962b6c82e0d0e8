//! Applications and the names that keys have in them: how they compare, and what of them goes into
//! a certificate.
//!
//! | application | identifier | in the certificate |
//! |---|---|---|
//! | `urn:ietf:rfc:2633`, `urn:ietf:rfc:2440` | mail address | rfc822Name |
//! | `urn:ietf:rfc:2818`, `urn:ietf:rfc:2487` | host name or IP address | dNSName, iPAddress |
//! | `urn:ietf:rfc:2401` | IP address | iPAddress |
//! | `urn:ietf:rfc:2246`, `http://www.w3.org/2002/03/xkms#`, `…#profile` | URI | URI |
//! | `urn:ietf:rfc:2459` | `CN=…,O=…` | subject |
//! | any other | any text of 1 to 256 characters | nothing: bound in the library only |

use std::net::IpAddr;

use model::keys::{KeyUse, UseWith};
use thiserror::Error;

use crate::{KeyUses, UserCert, UserName};

/// Applications that are known by name.
const MAIL: [&str; 2] = ["urn:ietf:rfc:2633", "urn:ietf:rfc:2440"];
const HOST: [&str; 2] = ["urn:ietf:rfc:2818", "urn:ietf:rfc:2487"];
const ADDRESS: &str = "urn:ietf:rfc:2401";
const URI: [&str; 3] = [
    "urn:ietf:rfc:2246",
    "http://www.w3.org/2002/03/xkms#",
    "http://www.w3.org/2002/03/xkms#profile",
];
const SUBJECT: &str = "urn:ietf:rfc:2459";
/// Longest application and identifier.
const MAX_TEXT: usize = 256;
/// Most of them in one binding.
pub const MAX_USE_WITH: usize = 32;

/// A name does not have the form of its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a name does not have the form of its application")]
pub struct UseWithInvalid;

/// The certificate of a user's key under this name: for these uses (none: whatever the key can
/// serve), applications and names. Where revocation is published is for the caller to add.
///
/// # Errors
/// [`UseWithInvalid`].
pub fn user_cert(
    name: &str,
    uses: &[KeyUse],
    use_with: &[UseWith],
) -> Result<UserCert, UseWithInvalid> {
    let certified = certified(use_with)?;
    let asked = |one: KeyUse| uses.is_empty() || uses.contains(&one);
    Ok(UserCert {
        name: certified.common_name.unwrap_or_else(|| name.to_owned()),
        organization: certified.organization,
        names: certified.names,
        uses: KeyUses {
            signature: asked(KeyUse::Signature),
            encryption: asked(KeyUse::Encryption),
            exchange: asked(KeyUse::Exchange),
        },
        crl_url: None,
        ocsp_url: None,
    })
}

/// What of a binding's names goes into its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certified {
    /// Alternative names.
    pub names: Vec<UserName>,
    /// Common name, if the subject was asked for.
    pub common_name: Option<String>,
    /// Organisation, if it was asked for.
    pub organization: Option<String>,
}

/// The form in which an identifier is compared.
#[must_use]
pub fn canonical(one: &UseWith) -> String {
    let UseWith { application, identifier } = one;
    let application = application.as_str();
    if MAIL.contains(&application) {
        match identifier.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
            None => identifier.clone(),
        }
    } else if HOST.contains(&application) {
        match identifier.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => identifier.trim_end_matches('.').to_ascii_lowercase(),
        }
    } else if application == ADDRESS {
        identifier.parse().map_or_else(|_| identifier.clone(), |ip: IpAddr| ip.to_string())
    } else if application == SUBJECT {
        canonical_dn(identifier)
    } else {
        identifier.clone()
    }
}

/// Whether two are the same.
#[must_use]
pub fn same(one: &UseWith, other: &UseWith) -> bool {
    one.application == other.application && canonical(one) == canonical(other)
}

/// A distinguished name in RFC 4514 text, comparable: its parts in order of their text, types in
/// upper case, values without surplus white space and in lower case.
#[must_use]
pub fn canonical_dn(text: &str) -> String {
    let mut parts: Vec<String> = attributes(text)
        .into_iter()
        .map(|(kind, value)| {
            let value: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{kind}={}", value.join(" ").to_ascii_lowercase())
        })
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

/// Types (upper case) and values of a distinguished name, in order; a backslash keeps the
/// character after it.
fn attributes(text: &str) -> Vec<(String, String)> {
    let (mut all, mut part, mut kept) = (Vec::new(), String::new(), false);
    for character in text.chars().chain([',']) {
        if kept {
            part.push(character);
            kept = false;
        } else if character == '\\' {
            kept = true;
        } else if matches!(character, ',' | ';' | '+') {
            let (kind, value) = part.split_once('=').unwrap_or(("", part.as_str()));
            if !part.trim().is_empty() {
                all.push((kind.trim().to_ascii_uppercase(), value.trim().to_owned()));
            }
            part.clear();
        } else {
            part.push(character);
        }
    }
    all
}

/// What goes into the certificate.
///
/// # Errors
/// [`UseWithInvalid`].
pub fn certified(all: &[UseWith]) -> Result<Certified, UseWithInvalid> {
    if all.len() > MAX_USE_WITH {
        return Err(UseWithInvalid);
    }
    let mut certified = Certified::default();
    for one in all {
        add(&mut certified, one)?;
    }
    Ok(certified)
}

fn add(to: &mut Certified, one: &UseWith) -> Result<(), UseWithInvalid> {
    let UseWith { application, identifier } = one;
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_TEXT;
    if !fits(application) || !fits(identifier) || identifier.chars().any(char::is_control) {
        return Err(UseWithInvalid);
    }
    let application = application.as_str();
    let invalid = UseWithInvalid;
    if MAIL.contains(&application) {
        let (local, domain) = identifier.rsplit_once('@').ok_or(invalid)?;
        let plain = identifier.bytes().all(|b| b.is_ascii_graphic());
        if local.is_empty() || !is_host(domain) || !plain {
            return Err(invalid);
        }
        to.names.push(UserName::Email(canonical(one)));
    } else if HOST.contains(&application) {
        let host = canonical(one);
        to.names.push(match host.parse() {
            Ok(address) => UserName::Ip(address),
            Err(_) if is_host(host.strip_prefix("*.").unwrap_or(&host)) => UserName::Dns(host),
            Err(_) => return Err(invalid),
        });
    } else if application == ADDRESS {
        to.names.push(UserName::Ip(identifier.parse().map_err(|_| invalid)?));
    } else if URI.contains(&application) {
        let scheme = identifier.split_once(':').map(|(scheme, _)| scheme);
        let named =
            scheme.is_some_and(|scheme| scheme.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !named || !identifier.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid);
        }
        to.names.push(UserName::Uri(identifier.clone()));
    } else if application == SUBJECT {
        subject(to, identifier)?;
    }
    to.names.dedup();
    Ok(())
}

/// A subject of a common name and, perhaps, an organisation: nothing else is certified.
fn subject(to: &mut Certified, text: &str) -> Result<(), UseWithInvalid> {
    for (kind, value) in attributes(text) {
        let place = match kind.as_str() {
            "CN" => &mut to.common_name,
            "O" => &mut to.organization,
            _ => return Err(UseWithInvalid),
        };
        if value.is_empty() || value.len() > 64 || place.replace(value).is_some() {
            return Err(UseWithInvalid);
        }
    }
    if to.common_name.is_some() { Ok(()) } else { Err(UseWithInvalid) }
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The applications that a certificate's own names stand for, for certificates of others.
#[must_use]
pub fn of_certificate(names: &[UserName], subject: &str) -> Vec<UseWith> {
    let one = |application: &str, identifier: &str| UseWith {
        application: application.to_owned(),
        identifier: identifier.to_owned(),
    };
    let mut all = Vec::new();
    if !subject.is_empty() {
        all.push(one(SUBJECT, subject));
    }
    for name in names {
        match name {
            UserName::Email(text) => all.extend(MAIL.map(|mail| one(mail, text))),
            UserName::Dns(text) => all.extend(HOST.map(|host| one(host, text))),
            UserName::Uri(text) => all.extend(URI.map(|uri| one(uri, text))),
            UserName::Ip(address) => {
                let text = address.to_string();
                all.extend([one(HOST[0], &text), one(ADDRESS, &text)]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(application: &str, identifier: &str) -> UseWith {
        UseWith { application: application.to_owned(), identifier: identifier.to_owned() }
    }

    #[test]
    fn names_that_mean_the_same_compare_the_same() {
        assert!(same(&one(MAIL[0], "bob@EXAMPLE.org"), &one(MAIL[0], "bob@example.org")));
        assert!(!same(&one(MAIL[0], "Bob@example.org"), &one(MAIL[0], "bob@example.org")));
        assert!(same(&one(HOST[0], "Web.example.org."), &one(HOST[0], "web.example.org")));
        assert!(same(&one(SUBJECT, "CN=a b , O=X"), &one(SUBJECT, "o=x,cn=A  B")));
        assert!(!same(&one(SUBJECT, r"CN=a\,O\=x"), &one(SUBJECT, "CN=a,O=x")));
        assert!(!same(&one(MAIL[0], "a@b"), &one(MAIL[1], "a@b")));
    }

    #[test]
    fn what_does_not_have_its_applications_form_is_refused() {
        for (application, identifier) in [
            (MAIL[0], "no-at"),
            (MAIL[0], "@example.org"),
            (MAIL[0], "a b@example.org"),
            (HOST[0], "-a.example"),
            (HOST[0], "a..b"),
            (ADDRESS, "300.1.1.1"),
            (URI[0], "no scheme"),
            (SUBJECT, "CN=a,CN=b"),
            (SUBJECT, "O=only"),
            (SUBJECT, "CN=a,OU=b"),
            ("urn:x", ""),
            ("", "x"),
            ("urn:x", "a\nb"),
        ] {
            let outcome = certified(&[one(application, identifier)]);
            assert_eq!(outcome, Err(UseWithInvalid), "{application} {identifier:?}");
        }
        let many = vec![one("urn:x", "y"); MAX_USE_WITH + 1];
        assert_eq!(certified(&many), Err(UseWithInvalid));
    }

    #[test]
    fn names_go_into_the_certificate_by_their_application() {
        let all = [
            one(MAIL[0], "bob@example.org"),
            one(HOST[0], "web.example.org"),
            one(HOST[0], "10.0.0.1"),
            one(SUBJECT, "CN=Bob,O=Example"),
            one("urn:own", "anything"),
        ];
        let certified = certified(&all).unwrap();
        assert_eq!(certified.names.len(), 3);
        assert_eq!(certified.common_name.as_deref(), Some("Bob"));
        assert_eq!(certified.organization.as_deref(), Some("Example"));
    }
}
