//! What is wished of a lab, and what stays as it was when nothing is said.

use model::HostId;

use crate::{
    args::{Accel, Manner},
    lab::{layout::Layout, record::Settings},
    output::Failure,
};

/// Hosts of a new lab.
const HOSTS: usize = 2;
/// Lease of a verdict in a new lab.
const LEASE_SECONDS: u64 = 1800;
/// Name of a host's configuration; a host is there once it has one.
pub(super) const CONFIG: &str = "host.toml";

/// What is wished; what is not said stays as it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Number of hosts, `a`, `b`, ...; those that are there stay.
    pub hosts: Option<u8>,
    /// Accelerator of their VMs.
    pub accel: Option<Accel>,
    /// Lease of a verdict in seconds.
    pub lease_seconds: Option<u64>,
    /// Who certifies keys.
    pub manner: Option<Manner>,
}

impl Wish {
    /// With what was wished before, or else the defaults.
    pub(super) fn settings(&self, before: Option<Settings>) -> Settings {
        let before = before.unwrap_or(Settings {
            accel: Accel::Auto,
            lease_seconds: LEASE_SECONDS,
            manner: Manner::Hybrid,
        });
        Settings {
            accel: self.accel.unwrap_or(before.accel),
            lease_seconds: self.lease_seconds.unwrap_or(before.lease_seconds),
            manner: self.manner.unwrap_or(before.manner),
        }
    }

    /// The hosts that the lab will have.
    pub(super) fn names(&self, layout: &Layout) -> Result<Vec<HostId>, Failure> {
        let letters: Vec<HostId> = (b'a'..=b'z')
            .map(|letter| char::from(letter).to_string().parse())
            .collect::<Result<_, _>>()?;
        let there = letters.iter().rposition(|name| layout.host(name).join(CONFIG).exists());
        let there = there.map_or(0, |last| last.saturating_add(1));
        let fresh = if there == 0 { HOSTS } else { there };
        let wished = self.hosts.map_or(fresh, usize::from).max(there);
        Ok(letters.into_iter().take(wished).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wish: Option<u8>, layout: &Layout) -> String {
        let wish = Wish { hosts: wish, ..Wish::default() };
        wish.names(layout).unwrap().iter().map(HostId::as_str).collect()
    }

    #[test]
    fn hosts_that_are_there_stay() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        assert_eq!(names(None, &layout), "ab");
        assert_eq!(names(Some(1), &layout), "a");
        for name in ["a", "b", "c"] {
            let host = layout.host(&name.parse().unwrap());
            std::fs::create_dir_all(&host).unwrap();
            std::fs::write(host.join(CONFIG), "").unwrap();
        }
        assert_eq!(names(None, &layout), "abc");
        assert_eq!(names(Some(1), &layout), "abc");
        assert_eq!(names(Some(4), &layout), "abcd");
    }

    #[test]
    fn what_is_not_said_stays_as_it_was() {
        let before =
            Wish { lease_seconds: Some(60), manner: Some(Manner::Full), ..Wish::default() };
        let before = before.settings(None);
        assert_eq!(Wish::default().settings(Some(before)), before);
        let other = Wish { lease_seconds: Some(90), ..Wish::default() }.settings(Some(before));
        assert_eq!((other.lease_seconds, other.manner), (90, Manner::Full));
    }
}
