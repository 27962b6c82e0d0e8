//! Serial numbers: decimal in XML, octets everywhere else.

/// Longest number, decimal digits: 20 octets and some.
const DIGITS: usize = 64;

/// The octets of a decimal number, big-endian without leading zeros; `None` if it is none.
pub(super) fn to_octets(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if text.is_empty() || text.len() > DIGITS {
        return None;
    }
    // Least octet first while it grows.
    let mut octets: Vec<u8> = Vec::new();
    for digit in text.bytes() {
        let digit = char::from(digit).to_digit(10)?;
        let mut carry = digit;
        for octet in &mut octets {
            let value = u32::from(*octet) * 10 + carry;
            *octet = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry > 0 {
            octets.push(u8::try_from(carry).ok()?);
        }
    }
    octets.reverse();
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_become_octets() {
        for (text, octets) in [
            ("1", Some(vec![1])),
            ("256", Some(vec![1, 0])),
            (" 65535 ", Some(vec![255, 255])),
            ("18446744073709551616", Some(vec![1, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("0", Some(vec![])),
            ("", None),
            ("-1", None),
            ("1a", None),
        ] {
            assert_eq!(to_octets(text), octets, "{text}");
        }
        assert_eq!(to_octets(&"9".repeat(65)), None);
    }
}
