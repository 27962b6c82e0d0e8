//! What can be set about the centre: its PKIs, its tenants, its bounds.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use model::{Domain, HostId, Tenant};
use pki::LostAnswer;
use serde::Deserialize;
use serve::config::SecretSource;
use token::TokenSettings;

use super::queue::Bounds;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The PKIs that certificates are ordered from.
    #[serde(rename = "domain")]
    pub domains: Vec<DomainSettings>,
    /// Who may order; nobody else may.
    #[serde(rename = "tenant")]
    pub tenants: Vec<TenantSettings>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// 32 octets from which the store is sealed; `root.key` in the state directory by default.
    #[serde(default)]
    pub root_key: Option<SecretSource>,
}

/// A PKI.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSettings {
    /// What orders call it.
    pub name: Domain,
    /// How certificates come from it.
    pub provider: ProviderSettings,
    /// Its trust anchors (PEM); our own CA is one by itself.
    #[serde(default)]
    pub anchors: Vec<PathBuf>,
    /// Its CAs below those (PEM).
    #[serde(default)]
    pub intermediates: Vec<PathBuf>,
    /// Cross-certificates on the way to other PKIs (PEM): a path over one of them is one over a
    /// bridge.
    #[serde(default)]
    pub cross: Vec<PathBuf>,
    /// CRLs (DER) that others put there, those of a bridge too; read again when they change.
    #[serde(default)]
    pub crls: Vec<PathBuf>,
    /// Where its CRL (DER) is fetched from.
    #[serde(default)]
    pub crl_url: Option<String>,
    /// How often its CRL is fetched or looked at, seconds.
    #[serde(default = "minute")]
    pub crl_every_s: u64,
    /// Longest life of a certificate, seconds. A foreign CA may decide otherwise.
    #[serde(default = "year")]
    pub key_life_s: u64,
    /// How long one exchange with it may take, seconds.
    #[serde(default = "half_minute")]
    pub exchange_s: u64,
    /// How long an order is tried, seconds; after that it is refused.
    #[serde(default = "day")]
    pub patience_s: u64,
    /// Before the second try of an order, milliseconds; doubled for each further one.
    #[serde(default = "second")]
    pub back_off_ms: u64,
    /// The longest wait between two tries, seconds.
    #[serde(default = "five_minutes")]
    pub back_off_most_s: u64,
}

/// How certificates come from a PKI.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ProviderSettings {
    /// The centre's own CA.
    Own(OwnSettings),
    /// A CA that speaks CMP.
    Cmp(CmpSettings),
    /// A CA that speaks ACME.
    Acme(AcmeSettings),
}

/// The centre's own CA.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnSettings {
    /// Common name, when it is made.
    pub ca_name: String,
    /// How long its CRL stands, seconds; a new one is published at half of it.
    #[serde(default = "day")]
    pub crl_life_s: u64,
    /// Where the CRL is, for certificates to say.
    #[serde(default)]
    pub crl_url: Option<String>,
    /// The token that its key is in; without it, the key is sealed in the store.
    #[serde(default)]
    pub token: Option<TokenSettings>,
}

/// A CA that speaks CMP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CmpSettings {
    /// Where it is.
    pub url: String,
    /// What it knows us by.
    pub reference: String,
    /// The secret that both sides know.
    pub secret: SecretSource,
    /// CAs (PEM) of its TLS server, if it has one.
    #[serde(default)]
    pub tls_anchors: Vec<PathBuf>,
    /// What to do about a request whose answer was lost.
    #[serde(default)]
    pub lost_answer: LostAnswer,
}

/// A CA that speaks ACME.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeSettings {
    /// Its directory's URL.
    pub directory: String,
    /// How it may reach the account's owner: `mailto:` URLs.
    #[serde(default)]
    pub contact: Vec<String>,
    /// That the operator agreed to its terms.
    #[serde(default)]
    pub terms_agreed: bool,
    /// CAs (PEM) of its TLS server.
    pub tls_anchors: Vec<PathBuf>,
    /// Where the centre shows what proves that names are its tenants': plain HTTP, reached by the
    /// CA as port 80 of each name.
    pub challenge_listen: SocketAddr,
}

/// A tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Its name.
    pub name: Tenant,
    /// The PKIs that it may order from.
    pub domains: Vec<Domain>,
    /// The servers that it is on; none: any.
    #[serde(default)]
    pub hosts: Vec<HostId>,
}

/// Bounds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open orders of one tenant at one PKI.
    pub tenant_orders: usize,
    /// Open orders at one PKI.
    pub domain_orders: usize,
    /// Turns that a tenant can save up.
    pub credit: u64,
    /// Orders that are worked on at once at our own CA.
    pub workers: usize,
    /// The same at a foreign PKI, for each of them: such an order mostly waits for the network.
    pub foreign_workers: usize,
    /// Orders that one worker takes, and makes durable, together.
    pub batch: usize,
    /// How long orders at their end are remembered, seconds.
    pub order_life_s: u64,
    /// Feed items that are kept.
    pub feed_items: u64,
    /// Refusals that are audited in a minute, of each kind; what is over is counted only.
    pub refusals_per_minute: u32,
    /// How often a checkpoint of an audit log that has grown is signed, seconds.
    pub checkpoint_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tenant_orders: 1000,
            domain_orders: 20_000,
            credit: 16,
            workers: 4,
            foreign_workers: 32,
            batch: 8,
            order_life_s: 30 * day(),
            feed_items: 100_000,
            refusals_per_minute: 600,
            checkpoint_s: 60,
        }
    }
}

impl Limits {
    /// Those of one PKI's queue.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        Bounds { tenant: self.tenant_orders, all: self.domain_orders, credit: self.credit }
    }
}

const fn second() -> u64 {
    1000
}

const fn half_minute() -> u64 {
    30
}

const fn minute() -> u64 {
    60
}

const fn five_minutes() -> u64 {
    300
}

const fn day() -> u64 {
    86_400
}

const fn year() -> u64 {
    365 * day()
}

impl DomainSettings {
    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let own = [&mut self.anchors, &mut self.intermediates, &mut self.cross, &mut self.crls];
        let tls = match &mut self.provider {
            ProviderSettings::Own(_) => None,
            ProviderSettings::Cmp(cmp) => Some(&mut cmp.tls_anchors),
            ProviderSettings::Acme(acme) => Some(&mut acme.tls_anchors),
        };
        own.into_iter().chain(tls).flatten()
    }

    /// How many orders are worked on at once.
    pub(crate) const fn workers(&self, limits: &Limits) -> usize {
        match &self.provider {
            ProviderSettings::Own(_) => limits.workers,
            ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) => limits.foreign_workers,
        }
    }

    const fn token_mut(&mut self) -> Option<&mut TokenSettings> {
        match &mut self.provider {
            ProviderSettings::Own(own) => own.token.as_mut(),
            ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) => None,
        }
    }

    fn problem(&self) -> Option<&'static str> {
        let bounded = |value: u64| (1..=100 * year()).contains(&value);
        let waits = [self.crl_every_s, self.exchange_s, self.patience_s, self.back_off_most_s];
        match &self.provider {
            ProviderSettings::Own(own) if !(1..=64).contains(&own.ca_name.len()) => {
                Some("`ca_name` must have 1 to 64 characters")
            }
            ProviderSettings::Own(own) if !(2..=30 * day()).contains(&own.crl_life_s) => {
                Some("`crl_life_s` must be between 2 and 2592000")
            }
            ProviderSettings::Own(OwnSettings { token: Some(token), .. })
                if token.problem().is_some() =>
            {
                token.problem()
            }
            ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) if self.anchors.is_empty() => {
                Some("a foreign PKI needs `anchors`: nothing is trusted because it came")
            }
            _ if !waits.into_iter().all(bounded) => Some("a time must not be zero"),
            _ if !(60..=10 * year()).contains(&self.key_life_s) => {
                Some("`key_life_s` must be between 60 and 315360000")
            }
            _ if self.back_off_ms == 0 => Some("`back_off_ms` must not be zero"),
            ProviderSettings::Own(_) | ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) => None,
        }
    }
}

impl Settings {
    /// The same with relative paths taken from `base`, the configuration's directory.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        let under = |path: &mut PathBuf| *path = base.join(&*path);
        for domain in &mut self.domains {
            domain.files().for_each(under);
            if let ProviderSettings::Cmp(CmpSettings { secret: SecretSource::Path(path), .. }) =
                &mut domain.provider
            {
                under(path);
            }
            if let Some(token) = domain.token_mut() {
                token.resolve(base);
            }
        }
        if let Some(SecretSource::Path(path)) = &mut self.root_key {
            under(path);
        }
        self
    }

    /// Every file that is read while the centre runs, for the sandbox.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut own = self.clone();
        let mut all: Vec<PathBuf> = own
            .domains
            .iter_mut()
            .flat_map(DomainSettings::files)
            .map(|file| file.clone())
            .collect();
        let secrets = self.domains.iter().filter_map(|domain| match &domain.provider {
            ProviderSettings::Cmp(cmp) => Some(&cmp.secret),
            ProviderSettings::Own(_) | ProviderSettings::Acme(_) => None,
        });
        all.extend(secrets.chain(&self.root_key).filter_map(|source| match source {
            SecretSource::Path(path) => Some(path.clone()),
            SecretSource::Fd(_) => None,
        }));
        all.extend(self.tokens().flat_map(TokenSettings::files).map(Path::to_owned));
        all
    }

    /// Every folder that is written to besides the state directory, for the sandbox.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.tokens().flat_map(|token| token.folders.clone()).collect()
    }

    fn tokens(&self) -> impl Iterator<Item = &TokenSettings> {
        self.domains.iter().filter_map(|domain| match &domain.provider {
            ProviderSettings::Own(own) => own.token.as_ref(),
            ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) => None,
        })
    }

    /// What is wrong with the values, if anything: where, and the problem.
    #[must_use]
    pub fn problem(&self) -> Option<(String, &'static str)> {
        let mut domains = BTreeSet::new();
        for domain in &self.domains {
            if !domains.insert(&domain.name) {
                return Some((format!("domain {}", domain.name), "is there twice"));
            }
            if let Some(problem) = domain.problem() {
                return Some((format!("domain {}", domain.name), problem));
            }
        }
        let mut tenants = BTreeSet::new();
        for tenant in &self.tenants {
            if !tenants.insert(&tenant.name) {
                return Some((format!("tenant {}", tenant.name), "is there twice"));
            }
            if !tenant.domains.iter().all(|one| domains.contains(one)) {
                return Some((format!("tenant {}", tenant.name), "names a PKI that is not there"));
            }
        }
        let Limits { tenant_orders, domain_orders, workers, foreign_workers, batch, .. } =
            self.limits;
        let zero = [tenant_orders, domain_orders, workers, foreign_workers, batch].contains(&0)
            || [self.limits.feed_items, self.limits.checkpoint_s, self.limits.order_life_s]
                .contains(&0)
            || self.limits.refusals_per_minute == 0;
        if domains.is_empty() {
            Some(("domain".to_owned(), "there must be one at least"))
        } else if zero || workers > 64 || foreign_workers > 256 || batch > 64 {
            let says = "must not have zero as a bound, nor more than 64 workers, 256 foreign \
                        workers or 64 orders in a batch";
            Some(("limits".to_owned(), says))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
