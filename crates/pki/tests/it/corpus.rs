//! Thousands of generated chains, judged here and by `openssl verify`; each difference has a line
//! in [`EXPLAINED`].

use std::{collections::BTreeMap, fs, path::Path};

use pki::{Anchors, Aspect, Oid, Pool, Terms, Usage, Validation, validate};
use rcgen::KeyUsagePurpose;
use time::Duration;

use crate::{
    forge::{
        ALTERNATIVE, EXTENDED_USAGE, INHIBIT_ANY, MAPPINGS, NAME_CONSTRAINTS, Name, POLICIES,
        POLICY_CONSTRAINTS, Plan, mappings, name_constraints, names, policies, policy_constraints,
        seq, tlv,
    },
    support::{NOW, openssl, write_pem},
};

/// Small, deterministic, good enough (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }
}

/// What we say, what openssl says, and why they may differ.
const EXPLAINED: [(&str, &str, &str); 0] = [];

const ALL: [Name; 10] = [
    Name::Dns("www.example.org"),
    Name::Dns("example.org"),
    Name::Dns("badexample.org"),
    Name::Email("a@example.org"),
    Name::Email("a@mail.example.org"),
    Name::Uri("https://www.example.org/x"),
    Name::Uri("https://evil.net/?example.org"),
    Name::Ip(&[10, 1, 2, 3]),
    Name::Ip(&[10, 9, 2, 3]),
    Name::Organization("Org"),
];

const TREES: [Name; 9] = [
    Name::Dns("example.org"),
    Name::Dns("www.example.org"),
    Name::Email("example.org"),
    Name::Email(".example.org"),
    Name::Uri("www.example.org"),
    Name::Uri(".example.org"),
    Name::Ip(&[10, 1, 0, 0, 255, 255, 0, 0]),
    Name::Organization("Org"),
    Name::Organization("Other"),
];

fn some<T: Clone>(dice: &mut Dice, from: &[T], most: usize) -> Vec<T> {
    let count = dice.below(most + 1);
    (0..count).map(|_| from[dice.below(from.len())].clone()).collect()
}

fn policy_set(dice: &mut Dice) -> Vec<u8> {
    let mut set = Vec::new();
    for number in 0..4 {
        if dice.one_in(2) {
            set.push(number);
        }
    }
    if set.is_empty() { vec![1] } else { set }
}

const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];

fn usage(dice: &mut Dice, mut plan: Plan) -> Plan {
    if dice.one_in(6) {
        let oid = if dice.one_in(3) { SERVER } else { CLIENT };
        plan = plan.with(&EXTENDED_USAGE, false, seq(&[tlv(6, oid)]));
    }
    plan
}

fn ca_extensions(dice: &mut Dice, mut plan: Plan) -> Plan {
    if !dice.one_in(4) {
        plan = plan.with(&POLICIES, false, policies(&policy_set(dice)));
    }
    if dice.one_in(4) {
        let pairs: Vec<(u8, u8)> = (0..=dice.below(2))
            .map(|_| (1 + dice.below(3) as u8, 1 + dice.below(3) as u8))
            .collect();
        plan = plan.with(&MAPPINGS, true, mappings(&pairs));
    }
    if dice.one_in(6) {
        let skip = |dice: &mut Dice| dice.one_in(2).then(|| dice.below(3) as u8);
        let (require, inhibit) = (skip(dice), skip(dice));
        if require.is_some() || inhibit.is_some() {
            plan = plan.with(&POLICY_CONSTRAINTS, true, policy_constraints(require, inhibit));
        }
    }
    if dice.one_in(6) {
        plan = plan.with(&INHIBIT_ANY, true, tlv(2, &[dice.below(3) as u8]));
    }
    if dice.one_in(3) {
        let (permitted, excluded) = (some(dice, &TREES, 2), some(dice, &TREES, 1));
        if !permitted.is_empty() || !excluded.is_empty() {
            let value = name_constraints(&permitted, &excluded);
            plan = plan.with(&NAME_CONSTRAINTS, true, value);
        }
    }
    usage(dice, plan)
}

/// At most one thing wrong in the plain sense.
fn defect(dice: &mut Dice, mut plan: Plan) -> Plan {
    match dice.below(60) {
        0 => plan.until = NOW - Duration::days(1),
        1 => plan.from = NOW + Duration::days(1),
        2 => plan.issuer_key = (plan.issuer_key + 1) % 24,
        3 => plan.ca = false,
        4 => plan.path_length = Some(0),
        5 => plan.usages = Some(vec![KeyUsagePurpose::DigitalSignature]),
        6 => plan = plan.with(&[1, 2, 3, 4], true, vec![5, 0]),
        7 => plan = plan.with(&[1, 2, 3, 4], false, vec![5, 0]),
        8 => plan.usages = None,
        _ => {}
    }
    plan
}

struct World {
    root: Vec<u8>,
    pool: Vec<Vec<u8>>,
    leaves: Vec<Vec<u8>>,
}

/// Chains of one to five certificates below one root; each with names of its own, so that there is
/// one path for each.
fn world(dice: &mut Dice, chains: usize) -> World {
    let root = Plan::root("Org/Root", 0).make();
    let (mut pool, mut leaves) = (Vec::new(), Vec::new());
    for chain in 0..chains {
        let (mut above, mut key) = ("Org/Root".to_owned(), 0);
        for level in 0..dice.below(4) {
            let roll_over = level > 0 && dice.one_in(10);
            let own = if roll_over { above.clone() } else { format!("Org/CA {chain} {level}") };
            let next = 1 + dice.below(23);
            let next = if next == key { (next % 23) + 1 } else { next };
            let plan = Plan::ca(&own, next, &above, key).serial((chain * 8 + level) as u64 + 2);
            let plan = ca_extensions(dice, plan);
            let made = defect(dice, plan).make();
            if !dice.one_in(60) {
                pool.push(made);
            }
            (above, key) = (own, next);
        }
        let organization = if dice.one_in(4) { "Other" } else { "Org" };
        let name = format!("{organization}/leaf {chain}");
        let mut plan = Plan::new(&name, dice.below(24), &above, key);
        plan = plan.serial(chain as u64 + 100_000);
        if !dice.one_in(4) {
            plan = plan.with(&POLICIES, false, policies(&policy_set(dice)));
        }
        let alternative = some(dice, &ALL, 2);
        if !alternative.is_empty() {
            plan = plan.with(&ALTERNATIVE, false, names(&alternative));
        }
        plan = usage(dice, plan);
        leaves.push(defect(dice, plan).make());
    }
    World { root, pool, leaves }
}

/// How a world is asked about.
#[derive(Clone, Copy, Debug)]
struct Manner {
    flags: &'static [&'static str],
    wanted: &'static [&'static str],
    required: bool,
    client: bool,
}

/// Said in full, because openssl takes no policy at all for none that will do, not for any.
const ANY: &str = "2.5.29.32.0";

const MANNERS: [Manner; 4] = [
    Manner { flags: &["-policy", ANY], wanted: &[], required: false, client: false },
    Manner {
        flags: &["-policy", ANY, "-explicit_policy"],
        wanted: &[],
        required: true,
        client: false,
    },
    Manner {
        flags: &["-explicit_policy", "-policy", "1.2.3.1"],
        wanted: &["1.2.3.1"],
        required: true,
        client: false,
    },
    Manner {
        flags: &["-policy", ANY, "-purpose", "sslclient"],
        wanted: &[],
        required: false,
        client: true,
    },
];

/// What openssl says of each leaf: `None` if it accepts it.
fn oracle(dir: &Path, world: &World, manner: Manner) -> Vec<Option<String>> {
    write_pem(dir, "root.pem", "CERTIFICATE", &world.root);
    let pem = |der: &Vec<u8>| {
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
    };
    fs::write(dir.join("pool.pem"), world.pool.iter().map(pem).collect::<String>()).unwrap();
    let mut files = Vec::new();
    for (at, leaf) in world.leaves.iter().enumerate() {
        files.push(format!("{at}.pem"));
        fs::write(dir.join(&files[at]), pem(leaf)).unwrap();
    }
    let time = NOW.unix_timestamp().to_string();
    let mut args = vec!["verify", "-no-CApath", "-no-CAstore", "-attime", &time];
    args.extend(["-CAfile", "root.pem", "-untrusted", "pool.pem"]);
    args.extend(manner.flags);
    args.extend(files.iter().map(String::as_str));
    let (_, said) = openssl(dir, &args);
    let mut lines: BTreeMap<usize, Option<String>> = BTreeMap::new();
    let mut reason = String::new();
    for line in said.lines() {
        if let Some((_, why)) = line.split_once("lookup: ") {
            reason = why.to_owned();
        } else if let Some(rest) = line.strip_prefix("error ")
            && let Some((number, "verification failed")) = rest.split_once(".pem: ")
        {
            lines.insert(number.parse().unwrap(), Some(std::mem::take(&mut reason)));
        } else if let Some((number, "OK")) = line.split_once(".pem: ") {
            lines.insert(number.parse().unwrap(), None);
            reason.clear();
        }
    }
    assert_eq!(lines.len(), world.leaves.len(), "{said}");
    lines.into_values().collect()
}

fn ours(world: &World, pool: &Pool, manner: Manner, leaf: &[u8]) -> Result<Validation, String> {
    let anchors = Anchors::new(&[&world.root]).unwrap();
    let client = Usage::Extended(Oid::new_unwrap("1.3.6.1.5.5.7.3.2"));
    let mut terms = Terms::new(NOW, if manner.client { client } else { Usage::Any });
    terms.policies = manner.wanted.iter().map(|one| Oid::new_unwrap(one)).collect();
    terms.require_policy = manner.required;
    validate(leaf, pool, &anchors, None, &terms).map_err(|rejection| rejection.code().to_owned())
}

/// Accepted but for revocation, which is not asked.
fn accepted(validation: &Validation) -> bool {
    validation.status().good().count() == 3
        && validation.status().open().collect::<Vec<_>>() == [Aspect::RevocationStatus]
}

#[test]
fn thousands_of_chains_are_judged_as_by_openssl_but_for_what_is_explained() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let dir = tempfile::tempdir().unwrap();
    let (mut judged, mut good) = (0, 0);
    let mut different: BTreeMap<(String, String), usize> = BTreeMap::new();
    for round in 0..24 {
        let manner = MANNERS[round % MANNERS.len()];
        let world = world(&mut dice, 200);
        let oracle = oracle(dir.path(), &world, manner);
        let pool = Pool::new(&world.pool).unwrap();
        for (leaf, theirs) in world.leaves.iter().zip(oracle) {
            let validation = ours(&world, &pool, manner, leaf);
            let mine = match &validation {
                Ok(validation) if accepted(validation) => None,
                Ok(validation) => Some(validation.refusal().unwrap().code().to_owned()),
                Err(code) => Some(code.clone()),
            };
            judged += 1;
            good += usize::from(mine.is_none());
            if mine.is_none() != theirs.is_none() {
                let key = |said: Option<String>| said.unwrap_or_else(|| "accepted".to_owned());
                *different.entry((key(mine), key(theirs))).or_default() += 1;
            }
        }
    }
    let unexplained: Vec<_> = different
        .iter()
        .filter(|((mine, theirs), _)| !EXPLAINED.iter().any(|(a, b, _)| a == mine && b == theirs))
        .collect();
    println!("{judged} chains, {good} accepted; different: {different:?}");
    assert!(unexplained.is_empty(), "of {judged}: {unexplained:?}");
    assert!(good > judged / 10 && good < judged * 9 / 10, "{good} of {judged} accepted");
}
