//! The rounds: a registration or a migration, a death in the middle of it, and what must be true
//! afterwards.

use std::{
    ops::RangeInclusive,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::sites::{CENTRE, HOSTS, Sites, name_of};
use crate::{checks::Checks, dice::Dice};

/// What is known of one owner.
struct Owner {
    name: String,
    /// Key names whose registration was acknowledged.
    keys: Vec<String>,
    /// Which of the two has them.
    at: usize,
}

pub fn play(
    sites: &mut Sites<'_>,
    checks: &mut Checks,
    dice: &mut Dice,
    rounds: RangeInclusive<u64>,
) {
    let mut owners: Vec<Owner> =
        (0..3).map(|n| Owner { name: format!("vm{n}"), keys: Vec::new(), at: n % 2 }).collect();
    for round in rounds {
        let at = dice.index(3);
        let Some(owner) = owners.get_mut(at) else { continue };
        let wrong = if owner.keys.is_empty() || dice.roll(2) == 0 {
            register(sites, dice, owner, round)
        } else {
            migrate(sites, dice, owner)
        };
        let (what, wrong) = wrong;
        checks.check(&format!("round {round}: {what}"), wrong.is_none(), wrong.unwrap_or_default());
    }
}

/// A registration whose trust service or centre dies.
fn register(
    sites: &mut Sites<'_>,
    dice: &mut Dice,
    owner: &mut Owner,
    round: u64,
) -> (String, Option<String>) {
    let (at, delay) = (owner.at, Duration::from_millis(dice.roll(120)));
    let victim = if sites.has_centre && dice.roll(2) == 0 { CENTRE } else { at };
    let name = format!("{}-key{round}", owner.name);
    let what = format!("register {name}, kill -9 {} after {delay:?}", name_of(victim));
    let order = sites.order(at, &name, &owner.name);
    let acknowledged = thread::scope(|scope| {
        let order = scope.spawn(move || order.and_then(super::sites::Order::carry_out));
        thread::sleep(delay);
        sites.kill(victim);
        order.join().unwrap_or_else(|_| Err("it panicked".to_owned()))
    });
    if !sites.start(victim) {
        return (what, Some("it does not come up again".to_owned()));
    }
    if acknowledged.is_ok() {
        owner.keys.push(name);
    }
    (what, wrong(sites, owner))
}

/// A migration under which one of the two dies, or both, or the centre.
fn migrate(sites: &mut Sites<'_>, dice: &mut Dice, owner: &mut Owner) -> (String, Option<String>) {
    let (from, to) = (owner.at, 1 - owner.at);
    let delay = Duration::from_millis(dice.roll(250));
    let mortal = [&[0][..], &[1], &[0, 1], &[CENTRE], &[1, CENTRE]];
    let victims: &[usize] = mortal[dice.index(if sites.has_centre { 5 } else { 3 })];
    let names: Vec<&str> = victims.iter().map(|at| name_of(*at)).collect();
    let what = format!(
        "migrate {} with {} keys from {} to {}, kill -9 {names:?} after {delay:?}",
        owner.name,
        owner.keys.len(),
        HOSTS[from],
        HOSTS[to]
    );
    let lab = sites.world.dir().to_str().expect("a plain path").to_owned();
    let mut asked = Command::new(env!("CARGO_BIN_EXE_vouchsafe"))
        .args(["key", "migrate", "--owner", &owner.name, "--from", HOSTS[from]])
        .args(["--to", HOSTS[to], "--wait", "20", "--lab", &lab, "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("vouchsafe starts");
    thread::sleep(delay);
    for at in victims {
        sites.kill(*at);
    }
    let down = victims.iter().find(|at| !sites.start(**at));
    let _ = asked.kill();
    let _ = asked.wait();
    if let Some(at) = down {
        return (what, Some(format!("{} does not come up again", name_of(*at))));
    }
    match sites.rest(&owner.name) {
        Some(at) => owner.at = at,
        None => {
            let places = [0, 1].map(|at| sites.place(at, &owner.name));
            return (what, Some(format!("the keys do not come to rest: {places:?}")));
        }
    }
    (what, wrong(sites, owner))
}

/// What is not as it must be: each acknowledged key at the one place, and at no other.
fn wrong(sites: &Sites<'_>, owner: &Owner) -> Option<String> {
    for name in &owner.keys {
        let found = [0, 1].map(|at| sites.servers[at].listed_key(name).is_some());
        if found != [owner.at == 0, owner.at == 1] {
            return Some(format!("{name} is held by {found:?}, not by {} alone", HOSTS[owner.at]));
        }
        // Where there is a centre, the other one may pass on what that knows.
        let answered = [0, 1].map(|at| sites.answers(at, name));
        let alone = answered[1 - owner.at] == Some(false) || sites.has_centre;
        if answered[owner.at] != Some(true) || !alone {
            return Some(format!("{name} is answered for by {answered:?}"));
        }
    }
    None
}
