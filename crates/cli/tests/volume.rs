//! `vouchsafe volume` from outside, with the stock tools as oracles. A tool that is not installed
//! is said aloud as `Skipped`.

#[cfg(test)]
#[path = "../../diskd/tests/it/boot.rs"]
mod boot;
#[cfg(test)]
#[path = "volume/claims.rs"]
mod claims;
#[cfg(test)]
#[path = "volume/convert.rs"]
mod convert;
#[cfg(test)]
#[path = "volume/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "shared/dice.rs"]
mod dice;
#[cfg(test)]
#[path = "volume/fixture.rs"]
mod fixture;
#[cfg(test)]
#[path = "volume/formats.rs"]
mod formats;
#[cfg(test)]
#[path = "volume/fsx.rs"]
mod fsx;
#[cfg(test)]
#[path = "volume/keys.rs"]
mod keys;
#[cfg(test)]
#[path = "volume/manage.rs"]
mod manage;
#[cfg(test)]
#[path = "volume/online.rs"]
mod online;
#[cfg(test)]
#[path = "volume/tls.rs"]
mod tls;
#[cfg(test)]
#[path = "volume/vhost.rs"]
mod vhost;
