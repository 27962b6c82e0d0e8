//! One test for each rule of the record.

use super::*;

fn head(n: u8) -> Digest {
    Digest::sha256([n; 32])
}

fn report(count: u64, n: u8, rest: bool) -> Report {
    Report { count, head: head(n), rest }
}

fn after(before: &Entry<u8>, by: u8, told: Report) -> Result<Entry<u8>, Rejection> {
    reported(Some(before), &by, &told, true)
}

#[test]
fn a_lower_count_and_another_header_with_the_same_are_refused_and_repeating_is_not() {
    let first = reported(None, &1, &report(4, 4, false), false).unwrap();
    assert_eq!(first, Entry { count: 4, head: head(4), holder: 1, run: Some(1) });
    assert_eq!(after(&first, 1, report(3, 3, false)), Err(Rejection::RolledBack));
    assert_eq!(after(&first, 1, report(4, 9, false)), Err(Rejection::Forked));
    assert_eq!(after(&first, 1, report(4, 4, false)).unwrap(), first);
    let ended = after(&first, 1, report(5, 5, true)).unwrap();
    assert_eq!((ended.count, ended.run), (5, None));
}

#[test]
fn another_holder_gets_the_count_only_once_the_run_has_ended() {
    let running = reported(None, &1, &report(4, 4, false), false).unwrap();
    assert_eq!(granted(&running, &2, false), Err(Rejection::NotHandedOver));
    assert_eq!(granted(&running, &1, false).unwrap().1, Start { count: 4, handed_over: false });
    let ended = after(&running, 1, report(5, 5, true)).unwrap();
    let (given, start) = granted(&ended, &2, false).unwrap();
    assert_eq!(start, Start { count: 5, handed_over: true });
    // A second try of it is told the same, and the first holder nothing any more.
    assert_eq!(granted(&given, &2, false).unwrap().1, start);
    assert_eq!(granted(&given, &1, false), Err(Rejection::NotHandedOver));
    assert_eq!(after(&given, 1, report(6, 6, true)), Err(Rejection::NotHandedOver));
    let moved = after(&given, 2, report(7, 7, false)).unwrap();
    assert_eq!((moved.holder, moved.run), (2, Some(2)));
}

#[test]
fn operators_who_insist_end_what_was_never_reported() {
    let running = reported(None, &1, &report(4, 4, false), false).unwrap();
    let (given, start) = granted(&running, &2, true).unwrap();
    assert_eq!((given.run, start), (Some(2), Start { count: 4, handed_over: true }));
}

#[test]
fn an_old_end_of_a_run_does_not_end_the_next_one() {
    let ended = reported(None, &1, &report(5, 5, true), true).unwrap();
    let (given, _) = granted(&ended, &1, false).unwrap();
    let told = report(5, 5, true);
    assert_eq!(reported(Some(&given), &1, &told, false).unwrap(), given);
    // Nor does the end of the last run that is reported only now.
    let late = reported(Some(&given), &1, &report(6, 6, true), false).unwrap();
    assert_eq!((late.count, late.run), (6, Some(1)));
    // When it is known that nothing came of it, it does.
    assert_eq!(reported(Some(&given), &1, &told, true).unwrap(), ended);
}

#[test]
fn a_table_below_the_record_is_refused_and_a_handed_over_volume_begins_at_the_record() {
    let same = Some(Start { count: 5, handed_over: false });
    assert_eq!(begin(same, Some(4)), Err(Rejection::RolledBack));
    assert_eq!(begin(same, Some(5)), Ok(Some(5)));
    assert_eq!(begin(same, Some(8)), Ok(Some(8)));
    assert_eq!(begin(same, None), Ok(None));
    assert_eq!(begin(None, Some(3)), Ok(Some(3)));
    let other = Some(Start { count: 5, handed_over: true });
    assert_eq!(begin(other, None), Ok(Some(5)));
    assert_eq!(begin(other, Some(3)), Ok(Some(5)));
    assert_eq!(begin(other, Some(8)), Ok(Some(8)));
}
