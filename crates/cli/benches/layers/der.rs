//! As much DER as a small CMP responder needs: tags of one byte, definite lengths.

/// One value.
#[derive(Clone, Copy, Debug)]
pub struct Tlv<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// Tag and length too.
    pub whole: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The values that it is made of.
    pub fn parts(self) -> Option<Vec<Self>> {
        all(self.content)
    }

    /// The only value in it.
    pub fn only(self) -> Option<Self> {
        first(self.content).map(|(inner, _)| inner)
    }
}

/// The first value, and what follows it.
pub fn first(input: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (tag, short) = (*input.first()?, *input.get(1)?);
    let (length, head) = if short < 0x80 {
        (usize::from(short), 2)
    } else {
        let count = usize::from(short & 0x7f);
        let bytes = input.get(2..2 + count).filter(|_| count <= 4)?;
        (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
    };
    let content = input.get(head..head + length)?;
    Some((Tlv { tag, content, whole: &input[..head + length] }, &input[head + length..]))
}

/// All values, one after the other.
pub fn all(mut input: &[u8]) -> Option<Vec<Tlv<'_>>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (one, rest) = first(input)?;
        found.push(one);
        input = rest;
    }
    Some(found)
}

/// A value made of these parts.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let used = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
    let length = &length[used..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | u8::try_from(length.len()).expect("few"));
    }
    out.extend_from_slice(length);
    out.extend_from_slice(&content);
    out
}
