//! Characters, names and references: the lexical half of the reader.

use super::XmlRejection;

/// A position in the text of a document.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Steps over `literal` if it comes next.
    pub(super) fn take(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    pub(super) fn expect(&mut self, literal: &str) -> Result<(), XmlRejection> {
        if self.take(literal) { Ok(()) } else { Err(XmlRejection::Malformed) }
    }

    /// Steps over white space; whether there was any.
    pub(super) fn space(&mut self) -> bool {
        let rest = self.rest();
        let kept = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - kept.len();
        kept.len() != rest.len()
    }

    /// Everything up to `literal`, which is stepped over.
    pub(super) fn until(&mut self, literal: &str) -> Result<&'a str, XmlRejection> {
        let (before, _) = self.rest().split_once(literal).ok_or(XmlRejection::Malformed)?;
        self.at += before.len() + literal.len();
        Ok(before)
    }

    /// Everything up to the first `stop`, which is not stepped over.
    pub(super) fn before(&mut self, stop: char) -> &'a str {
        let rest = self.rest();
        let part = rest.split_once(stop).map_or(rest, |(part, _)| part);
        self.at += part.len();
        part
    }

    /// A name with an optional prefix: `(prefix, local)`.
    pub(super) fn name(&mut self) -> Result<(&'a str, &'a str), XmlRejection> {
        let rest = self.rest();
        let plain = rest.bytes().take_while(|b| is_plain_name(*b) || *b == b':').count();
        let end = match rest.as_bytes().get(plain) {
            Some(0x80..) => rest.find(|c| !(is_name_char(c) || c == ':')).unwrap_or(rest.len()),
            _ => plain,
        };
        let name = rest.get(..end).unwrap_or_default();
        self.at += end;
        let parts = name.split_once(':');
        let (prefix, local) = parts.unwrap_or(("", name));
        if !is_ncname(local) || (parts.is_some() && !is_ncname(prefix)) {
            return Err(XmlRejection::Malformed);
        }
        Ok((prefix, local))
    }

    /// The quoted value of an attribute, normalised.
    pub(super) fn quoted(&mut self) -> Result<String, XmlRejection> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Err(XmlRejection::Malformed),
        };
        self.at += 1;
        let raw = self.before(quote);
        if self.is_done() || raw.contains('<') {
            return Err(XmlRejection::Malformed);
        }
        self.at += 1;
        let mut value = String::with_capacity(raw.len());
        expand(raw, &mut value, true)?;
        Ok(value)
    }
}

/// Appends `raw` to `out` with line ends normalised and references replaced; in an attribute, white
/// space becomes spaces.
pub(super) fn expand(raw: &str, out: &mut String, attribute: bool) -> Result<(), XmlRejection> {
    let mut rest = raw;
    loop {
        // Printable ASCII without markup is by far the most, and is taken in runs.
        let plain = rest.bytes().take_while(|b| matches!(b, b' '..=b'~') && *b != b'&').count();
        let (run, after) = rest.split_at_checked(plain).ok_or(XmlRejection::Malformed)?;
        out.push_str(run);
        let Some(c) = after.chars().next() else { return Ok(()) };
        rest = after.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '&' => {
                let (name, after) = rest.split_once(';').ok_or(XmlRejection::Malformed)?;
                out.push(reference(name)?);
                rest = after;
            }
            '\r' => {
                rest = rest.strip_prefix('\n').unwrap_or(rest);
                out.push(if attribute { ' ' } else { '\n' });
            }
            '\n' | '\t' if attribute => out.push(' '),
            c if is_char(c) => out.push(c),
            _ => return Err(XmlRejection::Malformed),
        }
    }
}

/// The character that `&name;` stands for.
fn reference(name: &str) -> Result<char, XmlRejection> {
    let number = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => name.strip_prefix('#').ok_or(XmlRejection::Entity)?,
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
    let plain =
        !digits.is_empty() && digits.len() <= 8 && digits.chars().all(|c| c.is_digit(radix));
    let value = u32::from_str_radix(digits, radix).ok().filter(|_| plain);
    value.and_then(char::from_u32).filter(|c| is_char(*c)).ok_or(XmlRejection::Malformed)
}

/// `Char` of XML 1.0.
pub(super) const fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// `NameStartChar` of XML 1.0, without the colon.
const fn is_name_start(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'a'..='z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
        | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}'
        | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

/// `NameChar` of XML 1.0, without the colon.
const fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// `NameChar` of ASCII, without the colon.
const fn is_plain_name(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.')
}

/// Whether `name` is an `NCName`.
pub(crate) fn is_ncname(name: &str) -> bool {
    if name.bytes().all(is_plain_name) {
        return name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    }
    name.chars().next().is_some_and(is_name_start) && name.chars().all(is_name_char)
}
