//! Volumes and exports from outside: our own wire client, and the stock tools as oracles. A tool
//! that is not installed is said aloud as `Skipped`.

#[cfg(test)]
mod client;
#[cfg(test)]
mod cryptsetup;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod header;
#[cfg(test)]
mod luks1;
#[cfg(test)]
#[path = "../../benches/disk/master.rs"]
#[expect(unreachable_pub, clippy::cast_possible_truncation, reason = "shared with the benches")]
mod master;
#[cfg(test)]
mod nbd_tools;
#[cfg(test)]
mod negotiation;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod through;
#[cfg(test)]
mod transmission;
#[cfg(test)]
mod vault_vectors;
#[cfg(test)]
mod vhost;
#[cfg(test)]
mod volume;
