//! The guest's own logs, as they come over the port `org.vouchsafe.evidence.0`: untrusted bytes,
//! bounded, only ever passed on. Sans-IO.
//!
//! A frame: `VOUCHSAFE-EVIDENCE 1 <bios_len> <ima_len>\n`, then so many bytes of
//! `binary_bios_measurements` and of `binary_runtime_measurements`. A reader that came late meets
//! the rest of another frame first, so everything up to the next header is skipped.

/// The longest boot log.
const BIOS: usize = 1 << 20;

/// The longest IMA list.
const IMA: usize = 4 << 20;

/// What every header begins with.
const MAGIC: &[u8] = b"VOUCHSAFE-EVIDENCE 1 ";

/// The longest header: magic, two numbers of seven digits, a space and a newline.
const HEADER: usize = MAGIC.len() + 16;

/// The guest's two logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logs {
    /// `binary_bios_measurements`.
    pub(crate) bios: Vec<u8>,
    /// `binary_runtime_measurements`; empty if the guest has none.
    pub(crate) ima: Vec<u8>,
}

/// Finds frames in a stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    held: Vec<u8>,
}

enum Found {
    Frame {
        start: usize,
        bios: usize,
        ima: usize,
    },
    /// Nothing before this position can be the start of a frame.
    Nothing {
        skip: usize,
    },
}

impl Frames {
    /// Takes bytes as they came and returns the first whole frame, if there is one now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Logs> {
        self.held.extend_from_slice(bytes);
        loop {
            match find(&self.held) {
                Found::Nothing { skip: 0 } => return None,
                Found::Nothing { skip } => {
                    self.held.drain(..skip.min(self.held.len()));
                }
                Found::Frame { start, bios, ima } => {
                    let middle = start.checked_add(bios)?;
                    let end = middle.checked_add(ima)?;
                    if self.held.len() < end {
                        return None;
                    }
                    let logs = Logs {
                        bios: self.held.get(start..middle)?.to_vec(),
                        ima: self.held.get(middle..end)?.to_vec(),
                    };
                    self.held.drain(..end);
                    return Some(logs);
                }
            }
        }
    }
}

fn find(held: &[u8]) -> Found {
    let Some(at) = held.windows(MAGIC.len()).position(|w| w == MAGIC) else {
        // The end may be the beginning of a header.
        return Found::Nothing { skip: held.len().saturating_sub(MAGIC.len() - 1) };
    };
    if at > 0 {
        return Found::Nothing { skip: at };
    }
    let line = held.get(MAGIC.len()..HEADER.min(held.len())).unwrap_or_default();
    let Some(end) = line.iter().position(|b| *b == b'\n') else {
        let complete = held.len() >= HEADER;
        return Found::Nothing { skip: if complete { 1 } else { 0 } };
    };
    match line.get(..end).and_then(lengths) {
        Some((bios, ima)) => Found::Frame { start: MAGIC.len() + end + 1, bios, ima },
        None => Found::Nothing { skip: 1 },
    }
}

fn lengths(words: &[u8]) -> Option<(usize, usize)> {
    let (bios, ima) = std::str::from_utf8(words).ok()?.split_once(' ')?;
    let (bios, ima) = (bios.parse().ok()?, ima.parse().ok()?);
    (bios <= BIOS && ima <= IMA).then_some((bios, ima))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bios: &[u8], ima: &[u8]) -> Vec<u8> {
        let mut out = format!("VOUCHSAFE-EVIDENCE 1 {} {}\n", bios.len(), ima.len()).into_bytes();
        out.extend_from_slice(bios);
        out.extend_from_slice(ima);
        out
    }

    #[test]
    fn the_rest_of_a_broken_frame_is_skipped() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(b"rest of a frame VOUCHSAFE-EVID"), None);
        let logs = frames.push(&frame(b"bios", b"ima")).unwrap();
        assert_eq!(logs, Logs { bios: b"bios".to_vec(), ima: b"ima".to_vec() });
    }

    #[test]
    fn lengths_over_the_limit_are_no_frame() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(b"VOUCHSAFE-EVIDENCE 1 9999999 0\n"), None);
        assert_eq!(frames.push(b"VOUCHSAFE-EVIDENCE 1 99999999999999999999999999 0\n"), None);
        assert!(frames.push(&frame(b"x", b"")).is_some());
    }

    proptest::proptest! {
        #[test]
        fn a_frame_is_found_however_it_is_cut(
            noise in proptest::collection::vec(0_u8..0x50, 0..40),
            bios: Vec<u8>, ima: Vec<u8>, cut in 1_usize..20,
        ) {
            let mut stream = noise;
            stream.extend_from_slice(&frame(&bios, &ima));
            let mut frames = Frames::default();
            let found = stream.chunks(cut).find_map(|piece| frames.push(piece));
            proptest::prop_assert_eq!(found, Some(Logs { bios, ima }));
        }

        #[test]
        fn any_stream_is_read_without_panic_and_in_bounds(pieces: Vec<Vec<u8>>) {
            let mut frames = Frames::default();
            for piece in pieces {
                let _ = frames.push(&piece);
                proptest::prop_assert!(frames.held.len() <= HEADER + BIOS + IMA + piece.len());
            }
        }
    }
}
