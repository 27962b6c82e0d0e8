//! A small NBD client that can also say wrong things.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const ZEROES: u16 = 6;
pub(crate) const STATUS: u16 = 7;

pub(crate) struct Client(pub(crate) UnixStream);

pub(crate) struct Chunk {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut out = b"IHAVEOPT".to_vec();
    out.extend(code.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

pub(crate) fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u16::try_from(infos.len()).unwrap().to_be_bytes());
    data.extend(infos.iter().flat_map(|i| i.to_be_bytes()));
    data
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

pub(crate) fn context(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    data.extend(queries.iter().flat_map(|q| string(q)));
    data
}

pub(crate) fn request(kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut out = 0x2560_9513_u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(length.to_be_bytes());
    out
}

impl Client {
    /// Connects and takes the greeting.
    pub(crate) fn connect(socket: &Path) -> Self {
        let mut client = Self(UnixStream::connect(socket).unwrap());
        let greeting = client.take(18);
        assert_eq!(greeting, b"NBDMAGICIHAVEOPT\x00\x03");
        client
    }

    /// Into transmission, with simple replies.
    pub(crate) fn simple(socket: &Path) -> Self {
        let mut client = Self::connect(socket);
        client.say(&3_u32.to_be_bytes());
        client.say(&option(1, b""));
        client.take(10);
        client
    }

    /// Into transmission, with structured replies and block status.
    pub(crate) fn structured(socket: &Path) -> Self {
        let mut client = Self::connect(socket);
        client.say(&3_u32.to_be_bytes());
        for (code, data) in [(8, vec![]), (10, context("", &["base:allocation"])), (7, go("", &[]))]
        {
            client.say(&option(code, &data));
            while client.option_reply().1 != 1 {}
        }
        client
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        self.0.read_exact(&mut out).unwrap();
        out
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Option, kind and data of an option reply.
    pub(crate) fn option_reply(&mut self) -> (u32, u32, Vec<u8>) {
        assert_eq!(self.take(8), 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let (code, kind, length) = (self.u32(), self.u32(), self.u32());
        (code, kind, self.take(length as usize))
    }

    /// Error and cookie of a simple reply.
    pub(crate) fn simple_reply(&mut self) -> (u32, u64) {
        assert_eq!(self.u32(), 0x6744_6698);
        let error = self.u32();
        (error, u64::from_be_bytes(self.take(8).try_into().unwrap()))
    }

    pub(crate) fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), 0x668e_33ef);
        let head = self.take(16);
        let length = u32::from_be_bytes(head[12..].try_into().unwrap());
        Chunk {
            flags: u16::from_be_bytes(head[..2].try_into().unwrap()),
            kind: u16::from_be_bytes(head[2..4].try_into().unwrap()),
            cookie: u64::from_be_bytes(head[4..12].try_into().unwrap()),
            payload: self.take(length as usize),
        }
    }

    /// Sends a request without payload and returns the error of its simple reply.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, offset: u64, length: u32) -> u32 {
        self.say(&request(kind, flags, 42, offset, length));
        let (error, cookie) = self.simple_reply();
        assert_eq!(cookie, 42);
        error
    }

    pub(crate) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let mut message = request(WRITE, flags, 43, offset, u32::try_from(data.len()).unwrap());
        message.extend(data);
        self.say(&message);
        self.simple_reply().0
    }

    /// Reads with simple replies.
    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        assert_eq!(self.ask(READ, 0, offset, length), 0);
        self.take(length as usize)
    }

    /// Whether the server has closed the connection (anything still waiting is dropped).
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
