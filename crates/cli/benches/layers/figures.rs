//! Means, their spread, and the rows that are printed and written.

use std::path::Path;

use serde_json::{Value, json};

use super::dice::Dice;

/// Rounds of the bootstrap.
const ROUNDS: usize = 2000;

pub fn mean(values: &[f64]) -> f64 {
    let count = u32::try_from(values.len()).expect("fewer");
    values.iter().sum::<f64>() / f64::from(count.max(1))
}

/// The value that so many thousandths of all are below.
pub fn percentile(values: &[f64], thousandths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * thousandths / 1000).copied().unwrap_or(0.0)
}

/// Where the ratio of two means lies, 95 times in 100, by drawing the values anew.
pub fn spread(ours: &[f64], theirs: &[f64]) -> [f64; 2] {
    let mut dice = Dice::new(0x5eed);
    let mut draw =
        |of: &[f64]| -> Vec<f64> { of.iter().map(|_| of[one_of(&mut dice, of.len())]).collect() };
    let ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (ours, theirs) = (draw(ours), draw(theirs));
            mean(&ours) / mean(&theirs)
        })
        .collect();
    [percentile(&ratios, 25), percentile(&ratios, 975)]
}

/// One from 0 to below 1, by lot.
pub fn share(dice: &mut Dice) -> f64 {
    let number = u32::try_from(dice.roll(1 << 32)).expect("32 bits");
    f64::from(number) / 4_294_967_296.0
}

/// One of so many, by lot.
pub fn one_of(dice: &mut Dice, count: usize) -> usize {
    dice.index(u64::try_from(count.max(1)).expect("small"))
}

/// A ratio of ours to that of direct clients, next to the paper's: smaller is better.
pub fn cell(case: &str, (ours, theirs): (&[f64], &[f64]), paper: Option<f64>, unit: &str) -> Value {
    let (xkms, pki) = (mean(ours), mean(theirs));
    let ratio = xkms / pki;
    let [low, high] = spread(ours, theirs);
    let (said, met) = match paper {
        Some(paper) => (format!("{paper:.2}"), if ratio <= paper { "" } else { "  above" }),
        None => ("-".to_owned(), ""),
    };
    println!(
        "{case:<28} {ratio:>6.2} [{low:.2}, {high:.2}] {said:>6}   {xkms:>9.1} {pki:>9.1} {unit}{met}"
    );
    json!({"case": case, "ours": ratio, "peer": paper, "peer_name": "Table 1 of document 000",
           "unit": "ratio", "ratio": paper.map(|paper| paper / ratio), "low": low, "high": high,
           "xkms": xkms, "pki": pki, "of": unit,
           "xkms_p90": percentile(ours, 900), "pki_p90": percentile(theirs, 900),
           "runs": ours.len()})
}

/// A figure without a peer.
pub fn figure(case: &str, value: f64, unit: &str) -> Value {
    println!("{case:<28} {value:>9.2} {unit}");
    json!({"case": case, "ours": value, "peer": null, "peer_name": null, "unit": unit,
           "ratio": null})
}

/// Writes the rows where benches put theirs.
pub fn write(name: &str, rows: &[Value]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(rows).expect("JSON");
    std::fs::write(dir.join(name), text).expect("written");
}
