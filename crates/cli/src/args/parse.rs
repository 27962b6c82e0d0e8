//! Values as they are typed, checked before anything is asked.

/// Least and most memory of a VM in MiB.
const MEMORY: std::ops::RangeInclusive<u32> = 64..=1 << 20;

/// Parses a VM's memory, as [`mebibytes`] with bounds.
pub(super) fn machine_memory(text: &str) -> Result<u32, String> {
    let size = mebibytes(text)?;
    if MEMORY.contains(&size) {
        return Ok(size);
    }
    Err(format!("{size} MiB is not between {}M and {}G", MEMORY.start(), MEMORY.end() >> 10))
}

/// A reason that says something.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why".to_owned()) } else { Ok(text.to_owned()) }
}

/// Parses `512M`, `2G` or a plain number of MiB.
pub(super) fn mebibytes(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['M', 'm']) {
        Some(digits) => (digits, 1),
        None => match text.strip_suffix(['G', 'g']) {
            Some(digits) => (digits, 1024),
            None => (text, 1),
        },
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|n| *n <= 1 << 20)
        .ok_or_else(|| format!("{text:?} is not a size such as 512M or 2G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory_within_bounds() {
        assert_eq!(machine_memory("64M"), Ok(64));
        assert_eq!(machine_memory("1024G"), Ok(1 << 20));
        for wrong in ["5", "63M", "0", "1025G"] {
            assert!(machine_memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_says_something() {
        assert_eq!(reason(" leaked "), Ok("leaked".to_owned()));
        assert!(reason("  ").is_err());
    }

    #[test]
    fn sizes_are_mebibytes() {
        assert_eq!(mebibytes("512M"), Ok(512));
        assert_eq!(mebibytes("2G"), Ok(2048));
        assert!(mebibytes("2T").is_err());
        assert!(mebibytes("9999999G").is_err());
    }
}
