//! DER, as little as an RSA key is made of: sequences, integers, octet strings.

/// The content of the value with this tag at the start of `der`, and what follows it.
pub(crate) fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length.checked_sub(0x80) {
        None => (usize::from(*length), rest),
        Some(octets) if octets <= 4 => {
            let (octets, rest) = rest.split_at_checked(usize::from(octets))?;
            (octets.iter().fold(0_usize, |n, o| (n << 8) | usize::from(*o)), rest)
        }
        Some(_) => return None,
    };
    rest.split_at_checked(length)
}

/// A value with this tag.
pub(crate) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let length = content.len().to_be_bytes();
            let length = crate::text::strip_zeros(&length);
            out.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
            out.extend_from_slice(length);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An unsigned integer.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let bytes = crate::text::strip_zeros(bytes);
    if bytes.first().is_none_or(|first| *first >= 0x80) {
        wrap(0x02, &[&[0], bytes].concat())
    } else {
        wrap(0x02, bytes)
    }
}
