//! The wire between a VM and the trust service of its server: a virtio-serial port, which is one
//! byte stream without ends. Frames give it sessions, so that a client or a reader that was started
//! again finds its place; what the sessions carry is TLS 1.3.
//!
//! ```text
//! frame = "VSXKMS1\n" | kind u8 | 0 | payload length u16 | session 8 bytes | payload
//!
//! client ── Open(s) ──────────► reader       any older session is over
//!        ◄───────── Opened(s) ──
//!        ◄──────── NotNow(s) ──             in place of the first Data: why there will be none
//!        ◄── Data(s) ─► both ways
//!        ── Close(s) ─► either way; also the answer to Data of a session that is not known
//! ```
//!
//! **Invariants:** bytes that are no frame are skipped up to the next one; nothing is held beyond one
//! frame; a frame of another session than the present one is never handed on. Nothing here is
//! authentic: whoever is on the port can end a session, and no more, for TLS is above it. A NotNow is a
//! Close with a reason that nobody vouches for: it ends a wait and answers nothing.

use std::fmt;

/// The name of the port in the guest.
pub const NAME: &str = "org.vouchsafe.xkms.0";

/// Most bytes in one frame.
pub const MAX_PAYLOAD: usize = 16 << 10;

const MAGIC: &[u8; 8] = b"VSXKMS1\n";

/// Bytes before the payload.
pub const HEADER: usize = MAGIC.len() + 12;

/// What a client chose at random for one TLS connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; 8]);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The client begins a session.
    Open = 1,
    /// The reader is ready for it.
    Opened = 2,
    /// Bytes of it.
    Data = 3,
    /// It is over, or unknown.
    Close = 4,
    /// It cannot be served now, and is over: the payload is one octet, a [`NotNow`].
    NotNow = 5,
}

/// Why a session cannot be served now, as somebody on the port says it, and nobody proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NotNow {
    /// The service has no passport to show: the authority gives it none, or is away.
    WithoutPassport = 1,
    /// The service cannot say, or has too much to do.
    Busy = 2,
}

impl NotNow {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::WithoutPassport => "service-without-passport",
            Self::Busy => "service-busy",
        }
    }

    /// What the payload of a frame of [`Kind::NotNow`] says. What a later version may say besides is
    /// taken for the least of it.
    #[must_use]
    pub const fn read(payload: &[u8]) -> Self {
        match payload {
            [1] => Self::WithoutPassport,
            _ => Self::Busy,
        }
    }
}

impl Kind {
    const fn read(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Open),
            2 => Some(Self::Opened),
            3 => Some(Self::Data),
            4 => Some(Self::Close),
            5 => Some(Self::NotNow),
            _ => None,
        }
    }

    /// Whether a payload of this length can be.
    const fn fits(self, length: usize) -> bool {
        match self {
            Self::Open | Self::Opened | Self::Close => length == 0,
            Self::Data => length <= MAX_PAYLOAD,
            Self::NotNow => length == 1,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of which session.
    pub session: Session,
    /// What it says.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes in [`Kind::Data`], one in [`Kind::NotNow`], else none.
    pub payload: Vec<u8>,
}

/// Appends a frame without payload to `out`.
pub fn write_word(session: Session, kind: Kind, out: &mut Vec<u8>) {
    header(session, kind, 0, out);
}

/// Appends a frame that says why a session cannot be served now to `out`.
pub fn write_not_now(session: Session, why: NotNow, out: &mut Vec<u8>) {
    header(session, Kind::NotNow, 1, out);
    out.push(why as u8);
}

/// Appends `bytes` to `out` as frames of [`Kind::Data`].
pub fn write_data(session: Session, bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(MAX_PAYLOAD) {
        header(session, Kind::Data, u16::try_from(chunk.len()).unwrap_or(u16::MAX), out);
        out.extend_from_slice(chunk);
    }
}

fn header(session: Session, kind: Kind, length: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&session.0);
}

/// Finds frames in a stream.
#[derive(Debug, Default)]
pub struct Frames {
    held: Vec<u8>,
}

enum Found {
    /// More bytes are needed.
    Nothing,
    /// No frame begins before this position.
    Skip(usize),
    /// A whole frame, and where it ends.
    Frame(Frame, usize),
}

impl Frames {
    /// Takes bytes as they came. Take what [`Self::next_frame`] gives before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one now.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let (frame, used) = match find(&self.held) {
                Found::Nothing | Found::Skip(0) => return None,
                Found::Skip(skip) => (None, skip),
                Found::Frame(frame, end) => (Some(frame), end),
            };
            self.held.drain(..used.min(self.held.len()));
            if frame.is_some() {
                return frame;
            }
        }
    }

    /// How many bytes wait for the rest of their frame.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.len()
    }
}

fn find(held: &[u8]) -> Found {
    let Some(at) = held.windows(MAGIC.len()).position(|window| window == MAGIC) else {
        // The end may be the beginning of a frame.
        return Found::Skip(held.len().saturating_sub(MAGIC.len() - 1));
    };
    if at > 0 {
        return Found::Skip(at);
    }
    let Some(rest) = held.get(MAGIC.len()..) else { return Found::Nothing };
    let Some((head, rest)) = rest.split_first_chunk::<12>() else { return Found::Nothing };
    let [kind, zero, high, low, session @ ..] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let kind = Kind::read(kind).filter(|kind| zero == 0 && kind.fits(length));
    let Some(kind) = kind else { return Found::Skip(1) };
    let Some(payload) = rest.get(..length) else { return Found::Nothing };
    let frame = Frame { session: Session(session), kind, payload: payload.to_vec() };
    Found::Frame(frame, HEADER.saturating_add(length))
}

/// What the reader's end of a port does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A new session: the one before, if any, is over. Say [`Kind::Opened`].
    Begin(Session),
    /// Bytes of the present session.
    Bytes(Vec<u8>),
    /// The present session is over.
    End,
    /// Say [`Kind::Close`] to this one: it is not known here.
    Unknown(Session),
    /// Nothing.
    Idle,
}

/// The reader's end of a port: which session is the present one.
#[derive(Debug, Default)]
pub struct Line {
    present: Option<Session>,
}

impl Line {
    /// What a frame from the client means.
    pub fn take(&mut self, frame: Frame) -> Turn {
        let present = self.present == Some(frame.session);
        match frame.kind {
            // Asked again because the answer was late: nothing was said yet, so it begins again.
            Kind::Open => {
                self.present = Some(frame.session);
                Turn::Begin(frame.session)
            }
            Kind::Data if present => Turn::Bytes(frame.payload),
            Kind::Data => Turn::Unknown(frame.session),
            Kind::Close if present => {
                self.present = None;
                Turn::End
            }
            Kind::Close | Kind::Opened | Kind::NotNow => Turn::Idle,
        }
    }

    /// The present session.
    #[must_use]
    pub const fn present(&self) -> Option<Session> {
        self.present
    }

    /// The reader ended the present session itself.
    pub const fn end(&mut self) {
        self.present = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Session = Session([7; 8]);

    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_data(S, bytes, &mut out);
        out
    }

    fn all(frames: &mut Frames) -> Vec<Frame> {
        std::iter::from_fn(|| frames.next_frame()).collect()
    }

    #[test]
    fn the_rest_of_a_broken_frame_is_skipped() {
        let mut frames = Frames::default();
        let whole = data(b"hello");
        frames.push(&whole[9..]);
        frames.push(&whole);
        let found = all(&mut frames);
        assert_eq!((found.len(), frames.held()), (1, 0));
        assert_eq!(found[0].payload, b"hello");
    }

    #[test]
    fn what_is_no_frame_of_ours_is_none() {
        for (at, value) in [(8, 0), (8, 6), (9, 1), (10, 0xff)] {
            let mut bytes = data(b"x");
            bytes[at] = value;
            let mut frames = Frames::default();
            frames.push(&bytes);
            assert_eq!(all(&mut frames), [], "byte {at}");
        }
        let mut word = data(b"x");
        word[8] = 1;
        let mut frames = Frames::default();
        frames.push(&word);
        assert_eq!(all(&mut frames), [], "an Open with a payload");
    }

    #[test]
    fn why_a_session_is_not_served_now_is_one_octet() {
        let mut frames = Frames::default();
        for why in [NotNow::WithoutPassport, NotNow::Busy] {
            let mut out = Vec::new();
            write_not_now(S, why, &mut out);
            frames.push(&out);
            let found = all(&mut frames);
            assert_eq!((found.len(), found[0].kind), (1, Kind::NotNow));
            assert_eq!(NotNow::read(&found[0].payload), why);
        }
        assert_eq!(NotNow::read(&[3]), NotNow::Busy);
        // Without its octet, or with two, it is no frame.
        for length in [0, 2] {
            let mut out = Vec::new();
            header(S, Kind::NotNow, length, &mut out);
            out.extend_from_slice(&[1; 2]);
            frames.push(&out);
            assert_eq!(all(&mut frames), [], "{length}");
            frames = Frames::default();
        }
    }

    #[test]
    fn a_line_knows_its_session_and_no_other() {
        let mut line = Line::default();
        let frame = |session, kind| Frame { session, kind, payload: Vec::new() };
        let other = Session([8; 8]);
        assert_eq!(line.take(frame(S, Kind::Data)), Turn::Unknown(S));
        assert_eq!(line.take(frame(S, Kind::Open)), Turn::Begin(S));
        assert_eq!(line.take(frame(S, Kind::Data)), Turn::Bytes(Vec::new()));
        assert_eq!(line.take(frame(other, Kind::Close)), Turn::Idle);
        assert_eq!(line.take(frame(other, Kind::Open)), Turn::Begin(other));
        assert_eq!(line.take(frame(S, Kind::Data)), Turn::Unknown(S));
        assert_eq!(line.take(frame(other, Kind::Close)), Turn::End);
        assert_eq!(line.take(frame(other, Kind::Data)), Turn::Unknown(other));
    }

    proptest::proptest! {
        #[test]
        fn bytes_come_through_however_they_are_cut(
            noise in proptest::collection::vec(0_u8..0x40, 0..40),
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40_000),
            cut in 1_usize..5_000,
        ) {
            let mut stream = noise;
            stream.extend_from_slice(&data(&bytes));
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in stream.chunks(cut) {
                frames.push(piece);
                got.extend(all(&mut frames).into_iter().flat_map(|frame| frame.payload));
            }
            proptest::prop_assert_eq!(got, bytes);
        }

        #[test]
        fn any_stream_is_read_without_panic_and_in_bounds(pieces: Vec<Vec<u8>>) {
            let mut frames = Frames::default();
            for piece in pieces {
                frames.push(&piece);
                all(&mut frames);
                proptest::prop_assert!(frames.held() <= HEADER + MAX_PAYLOAD);
            }
        }
    }
}
