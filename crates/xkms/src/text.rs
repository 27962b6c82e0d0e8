//! Values as characters: base64, instants, integers.

use base64::{Engine, engine::general_purpose::STANDARD};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Base64 as XML Schema has it: white space anywhere, padding required.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let spaced = text.bytes().any(|b| b.is_ascii_whitespace());
    if !spaced {
        return STANDARD.decode(text).ok();
    }
    let packed: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(packed).ok()
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// `ds:CryptoBinary`: an unsigned integer without leading zero octets.
pub(crate) fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// `xs:dateTime`; without a zone it is taken as UTC, fractions of a second are kept, `24:00:00` is
/// the next midnight.
pub(crate) fn from_date_time(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let (date, clock) = text.split_once('T')?;
    if date.len() != 10 || !text.is_ascii() {
        return None;
    }
    let zoned = clock.ends_with('Z') || clock.contains(['+', '-']);
    let full = if zoned { text.to_owned() } else { format!("{text}Z") };
    let midnight = clock.strip_prefix("24:00:00").is_some_and(|rest| !rest.starts_with('.'));
    let full = if midnight { full.replacen("T24:", "T00:", 1) } else { full };
    let at = OffsetDateTime::parse(&full, &Rfc3339).ok()?;
    let at = if midnight { at.checked_add(Duration::DAY)? } else { at };
    at.checked_to_offset(UtcOffset::UTC).filter(|at| at.year() >= 1)
}

/// `xs:dateTime` in UTC with `Z`, to the second.
pub(crate) fn to_date_time(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let mut out = String::with_capacity(20);
    push_digits(&mut out, at.year().unsigned_abs(), 4);
    let parts = [
        ('-', u8::from(at.month())),
        ('-', at.day()),
        ('T', at.hour()),
        (':', at.minute()),
        (':', at.second()),
    ];
    for (before, part) in parts {
        out.push(before);
        push_digits(&mut out, part.into(), 2);
    }
    out.push('Z');
    out
}

/// The last `count` decimal digits of `number`.
fn push_digits(out: &mut String, number: u32, count: u32) {
    for place in (0..count).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        out.extend(char::from_digit(digit, 10));
    }
}

/// `xs:integer`, as far as 64 bits go.
pub(crate) fn from_integer(text: &str) -> Option<i64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    text.strip_prefix('+').filter(|t| !t.starts_with('-')).unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_with_and_without_a_zone_and_written_in_utc() {
        for (text, written) in [
            ("2026-11-22T01:02:03Z", "2026-11-22T01:02:03Z"),
            ("2026-11-22T01:02:03", "2026-11-22T01:02:03Z"),
            ("2026-11-22T01:02:03.5+02:00", "2026-11-21T23:02:03Z"),
            ("2026-12-31T24:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(from_date_time(text).map(to_date_time).as_deref(), Some(written), "{text}");
        }
        for text in [
            "2026-11-22",
            "2026-13-22T01:02:03Z",
            "T01:02:03Z",
            "",
            "2026-11-22T1:2:3Z",
            "0000-01-01T00:00:00+01:00",
        ] {
            assert_eq!(from_date_time(text), None, "{text}");
        }
    }

    #[test]
    fn base64_takes_white_space_and_refuses_what_is_cut_off() {
        assert_eq!(from_base64(" YW\nJj "), Some(b"abc".to_vec()));
        assert_eq!(from_base64("YW"), None);
        assert_eq!(from_integer("+7"), Some(7));
        assert_eq!(from_integer("+-7"), None);
    }
}
