//! Name constraints (RFC 5280, section 4.2.1.10): DNS, e-mail, URI, IP and directory names.
//!
//! A constraint on another form of name refuses every certificate that has a name of that form.
//! Stricter than the RFC: e-mail addresses in the subject are constrained even if there are
//! alternative names, a common name that could be taken for a host's is constrained like one, and
//! the constraints of a trust anchor's certificate count.

use x509_cert::ext::pkix::{NameConstraints, constraints::name::GeneralSubtree, name::GeneralName};

use crate::{cert::Cert, dn::Dn, verify::CertRejection};

/// Most comparisons on one path.
const MAX_COMPARISONS: usize = 1 << 16;

/// Constraints in force below some certificate of a path.
#[derive(Debug, Default)]
pub(super) struct Constraints<'a> {
    /// One group a certificate: a name must be within one of each group that has its form.
    permitted: Vec<Vec<Tree<'a>>>,
    excluded: Vec<Tree<'a>>,
    comparisons: usize,
}

#[derive(Debug)]
struct Tree<'a> {
    base: Base<'a>,
    /// With a minimum or maximum, which nobody may use.
    limited: bool,
}

/// A name, by form; the form of a constraint equally.
#[derive(Debug)]
enum Base<'a> {
    Email(&'a str),
    Dns(&'a str),
    Uri(&'a str),
    Ip(&'a [u8]),
    Directory(Dn),
    Other(u8),
}

impl<'a> Base<'a> {
    fn new(name: &'a GeneralName) -> Result<Self, CertRejection> {
        Ok(match name {
            GeneralName::Rfc822Name(text) => Self::Email(text.as_str()),
            GeneralName::DnsName(text) => Self::Dns(text.as_str()),
            GeneralName::UniformResourceIdentifier(text) => Self::Uri(text.as_str()),
            GeneralName::IpAddress(bytes) => Self::Ip(bytes.as_bytes()),
            GeneralName::DirectoryName(name) => {
                Self::Directory(Dn::new(name).map_err(|_| CertRejection::Malformed)?)
            }
            GeneralName::OtherName(_) => Self::Other(0),
            GeneralName::EdiPartyName(_) => Self::Other(5),
            GeneralName::RegisteredId(_) => Self::Other(8),
        })
    }

    fn same_form(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(a), Self::Other(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl<'a> Constraints<'a> {
    /// Adds those of `cert` to those in force.
    pub(super) fn add(&mut self, cert: &'a Cert) -> Result<(), CertRejection> {
        let Some(NameConstraints { permitted_subtrees, excluded_subtrees }) =
            cert.name_constraints()
        else {
            return Ok(());
        };
        if let Some(permitted) = permitted_subtrees {
            self.permitted.push(trees(permitted)?);
        }
        if let Some(excluded) = excluded_subtrees {
            self.excluded.extend(trees(excluded)?);
        }
        Ok(())
    }

    /// Whether all names of `cert` are allowed.
    pub(super) fn check(&mut self, cert: &'a Cert, last: bool) -> Result<(), CertRejection> {
        if self.permitted.is_empty() && self.excluded.is_empty() {
            return Ok(());
        }
        if !cert.subject().is_empty() {
            self.allow(&Base::Directory(cert.subject().clone()))?;
        }
        for name in cert.alternative_names() {
            self.allow(&Base::new(name)?)?;
        }
        for email in cert.subject_emails() {
            self.allow(&Base::Email(email))?;
        }
        let has_dns = |name: &GeneralName| matches!(name, GeneralName::DnsName(_));
        if last && !cert.alternative_names().iter().any(has_dns) {
            for name in cert.common_names().iter().filter(|name| is_host(name)) {
                self.allow(&Base::Dns(name))?;
            }
        }
        Ok(())
    }

    fn allow(&mut self, name: &Base<'_>) -> Result<(), CertRejection> {
        let more = self.permitted.iter().map(Vec::len).sum::<usize>() + self.excluded.len();
        self.comparisons = self.comparisons.saturating_add(more);
        if self.comparisons > MAX_COMPARISONS {
            return Err(CertRejection::SearchTooLong);
        }
        for group in &self.permitted {
            let mut of_form = group.iter().filter(|tree| tree.base.same_form(name)).peekable();
            if of_form.peek().is_none() {
                continue;
            }
            let mut inside = false;
            for tree in of_form {
                inside |= tree.covers(name)?;
            }
            if !inside {
                return Err(CertRejection::NameNotPermitted);
            }
        }
        for tree in self.excluded.iter().filter(|tree| tree.base.same_form(name)) {
            if tree.covers(name)? {
                return Err(CertRejection::NameExcluded);
            }
        }
        Ok(())
    }
}

fn trees(subtrees: &[GeneralSubtree]) -> Result<Vec<Tree<'_>>, CertRejection> {
    let mut trees = Vec::new();
    for subtree in subtrees {
        let limited = subtree.minimum != 0 || subtree.maximum.is_some();
        trees.push(Tree { base: Base::new(&subtree.base)?, limited });
    }
    Ok(trees)
}

impl Tree<'_> {
    fn covers(&self, name: &Base<'_>) -> Result<bool, CertRejection> {
        if self.limited {
            return Err(CertRejection::NameConstraintUnknown);
        }
        match (&self.base, name) {
            (Base::Directory(base), Base::Directory(name)) => Ok(name.is_within(base)),
            (Base::Dns(base), Base::Dns(name)) => Ok(dns(base, name)),
            (Base::Email(base), Base::Email(name)) => email(base, name),
            (Base::Uri(base), Base::Uri(name)) => uri(base, name),
            (Base::Ip(base), Base::Ip(name)) => ip(base, name),
            (_, _) => Err(CertRejection::NameConstraintUnknown),
        }
    }
}

fn ends_with(name: &str, end: &str) -> bool {
    let at = name.len().checked_sub(end.len());
    at.and_then(|at| name.as_bytes().get(at..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
}

/// `base` itself and everything below; a leading dot leaves `base` itself out.
fn dns(base: &str, name: &str) -> bool {
    // A trailing dot names the same host.
    let (base, name) =
        (base.strip_suffix('.').unwrap_or(base), name.strip_suffix('.').unwrap_or(name));
    if base.is_empty() || name.eq_ignore_ascii_case(base) {
        return true;
    }
    if base.starts_with('.') {
        return ends_with(name, base);
    }
    ends_with(name, base)
        && name.len().checked_sub(base.len() + 1).and_then(|at| name.as_bytes().get(at))
            == Some(&b'.')
}

/// A host, exactly, or with a leading dot everything below it.
fn host(base: &str, name: &str) -> bool {
    if base.starts_with('.') {
        name.len() > base.len() && ends_with(name, base)
    } else {
        name.eq_ignore_ascii_case(base)
    }
}

fn email(base: &str, name: &str) -> Result<bool, CertRejection> {
    let (local, at) = name.rsplit_once('@').ok_or(CertRejection::NameConstraintUnknown)?;
    Ok(match base.rsplit_once('@') {
        // As `openssl` has it, nobody in particular is everybody there.
        Some((mailbox, domain)) => {
            (mailbox.is_empty() || mailbox == local) && at.eq_ignore_ascii_case(domain)
        }
        None => host(base, at),
    })
}

fn uri(base: &str, name: &str) -> Result<bool, CertRejection> {
    let unknown = CertRejection::NameConstraintUnknown;
    let (_scheme, rest) = name.split_once("://").ok_or(unknown)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let at = authority.rsplit_once('@').map_or(authority, |(_user, at)| at);
    if at.starts_with('[') {
        return Err(unknown);
    }
    let at = at.split(':').next().unwrap_or_default();
    // An address is no name: the RFC demands a fully qualified one.
    if at.is_empty() || at.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(unknown);
    }
    Ok(host(base, at))
}

fn ip(base: &[u8], name: &[u8]) -> Result<bool, CertRejection> {
    if !matches!(base.len(), 8 | 32) || !matches!(name.len(), 4 | 16) {
        return Err(CertRejection::NameConstraintUnknown);
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let inside = |((a, b), mask): ((&u8, &u8), &u8)| a & mask == b & mask;
    Ok(network.len() == name.len() && network.iter().zip(name).zip(mask).all(inside))
}

/// Whether a common name could be taken for the name of a host.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'*';
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(inner)
    };
    name.contains('.') && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_covered_by_whole_labels() {
        assert!(dns("example.org", "example.org"));
        assert!(dns("example.org", "A.Example.ORG"));
        assert!(dns("example.org", "example.org."));
        assert!(!dns("example.org", "badexample.org"));
        assert!(!dns("example.org", "example.org.evil"));
        assert!(!dns("example.org", "org"));
        assert!(dns("", "anything"));
        assert!(dns(".example.org", "a.example.org"));
        assert!(!dns(".example.org", "example.org"));
    }

    #[test]
    fn mail_is_covered_by_mailbox_host_or_domain() {
        assert_eq!(email("a@example.org", "a@EXAMPLE.org"), Ok(true));
        assert_eq!(email("a@example.org", "A@example.org"), Ok(false));
        assert_eq!(email("example.org", "a@example.org"), Ok(true));
        assert_eq!(email("example.org", "a@b.example.org"), Ok(false));
        assert_eq!(email(".example.org", "a@b.example.org"), Ok(true));
        assert_eq!(email(".example.org", "a@example.org"), Ok(false));
        assert_eq!(email("example.org", "example.org"), Err(CertRejection::NameConstraintUnknown));
    }

    #[test]
    fn a_uri_is_covered_by_its_host_alone() {
        assert_eq!(uri("example.org", "https://u@example.org:8/x?y"), Ok(true));
        assert_eq!(uri("example.org", "https://example.org@evil.net/"), Ok(false));
        assert_eq!(uri("example.org", "https://evil.net/?@example.org"), Ok(false));
        assert_eq!(uri("example.org", "https://evil.net#@example.org"), Ok(false));
        assert_eq!(uri(".example.org", "ldap://a.example.org"), Ok(true));
        for none in ["urn:example.org", "https://[::1]/", "https://10.0.0.1/", "https:///x"] {
            assert_eq!(uri("example.org", none), Err(CertRejection::NameConstraintUnknown));
        }
    }

    #[test]
    fn an_address_is_covered_by_network_and_mask() {
        let net = [10, 1, 0, 0, 255, 255, 0, 0];
        assert_eq!(ip(&net, &[10, 1, 2, 3]), Ok(true));
        assert_eq!(ip(&net, &[10, 2, 2, 3]), Ok(false));
        assert_eq!(ip(&net, &[0; 16]), Ok(false));
        assert!(ip(&net, &[10, 1, 2]).is_err());
        assert!(ip(&[10, 1], &[10, 1, 2, 3]).is_err());
    }

    #[test]
    fn common_names_that_look_like_hosts() {
        assert!(is_host("www.example.org") && is_host("*.example.org"));
        assert!(!is_host("Some CA") && !is_host("a..b") && !is_host("Dr. Who"));
    }
}
