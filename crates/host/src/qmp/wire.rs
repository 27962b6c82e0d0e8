//! QMP's lines: what we send, and what QEMU's lines mean to us. Sans-IO.

use serde_json::{Value, json};

/// A line from QEMU.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Incoming {
    /// The first line.
    Greeting,
    /// The answer to the command of this id: its value, or QEMU's words.
    Answer(u64, Result<Value, String>),
    /// Something happened.
    Event(Event),
}

/// What happened to a machine, as far as the agent acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The CPUs were stopped.
    Stop,
    /// They run again.
    Resume,
    /// The machine powers off.
    Shutdown {
        /// The guest asked, not the host.
        guest: bool,
        /// It was a reset that QEMU turned into a shutdown (`-action reboot=shutdown`).
        reset: bool,
    },
    /// A request of this block device failed.
    BlockError {
        /// Device or node.
        device: String,
    },
    /// A device was plugged out.
    DeviceDeleted {
        /// Its id.
        device: String,
    },
    /// Another event.
    Other(String),
}

/// State of the machine's CPUs (QMP `RunState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    /// They run.
    Running,
    /// Stopped by `stop` or `-S`.
    Paused,
    /// Stopped by a failed request of a block device.
    IoError,
    /// The machine has powered off.
    Shutdown,
    /// Another one; the CPUs do not run.
    Other,
}

impl RunState {
    /// Reads the value of `query-status`.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        Some(match value.get("status")?.as_str()? {
            "running" => Self::Running,
            "paused" | "prelaunch" => Self::Paused,
            "io-error" => Self::IoError,
            "shutdown" | "guest-panicked" => Self::Shutdown,
            _ => Self::Other,
        })
    }
}

impl Incoming {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        if value.get("QMP").is_some() {
            return Some(Self::Greeting);
        }
        if let Some(event) = value.get("event") {
            return Some(Self::Event(Event::parse(event.as_str()?, value.get("data"))));
        }
        let id = value.get("id").and_then(Value::as_u64);
        if let Some(result) = value.get("return") {
            return Some(Self::Answer(id?, Ok(result.clone())));
        }
        let description = value.get("error")?.get("desc")?.as_str()?.to_owned();
        // A line that QEMU could not parse is answered without an id; ours always parse.
        Some(Self::Answer(id.unwrap_or(0), Err(description)))
    }
}

impl Event {
    fn parse(name: &str, data: Option<&Value>) -> Self {
        let text = |field: &str| {
            data.and_then(|d| d.get(field)).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        match name {
            "STOP" => Self::Stop,
            "RESUME" => Self::Resume,
            "SHUTDOWN" => Self::Shutdown {
                guest: data.and_then(|d| d.get("guest")).and_then(Value::as_bool).unwrap_or(false),
                reset: text("reason").ends_with("-reset"),
            },
            "BLOCK_IO_ERROR" => Self::BlockError {
                device: Some(text("device")).filter(|d| !d.is_empty()).unwrap_or(text("node-name")),
            },
            "DEVICE_DELETED" => Self::DeviceDeleted { device: text("device") },
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The line of a command.
pub(super) fn command_line(id: u64, command: &str, arguments: Value) -> Vec<u8> {
    let mut value = json!({"execute": command, "id": id});
    if let (Value::Object(fields), Value::Object(_)) = (&mut value, &arguments) {
        fields.insert("arguments".to_owned(), arguments);
    }
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_turned_into_a_shutdown_is_told_from_a_power_off() {
        let line = br#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let reset = Event::Shutdown { guest: true, reset: true };
        assert_eq!(Incoming::parse(line), Some(Incoming::Event(reset)));
        let line = br#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
        let off = Event::Shutdown { guest: true, reset: false };
        assert_eq!(Incoming::parse(line), Some(Incoming::Event(off)));
    }

    #[test]
    fn what_is_not_qmp_is_not_taken() {
        for line in
            [&b"x"[..], b"{}", b"[]", br#"{"return": {}}"#, br#"{"event": 1}"#, b"{\"error\":1}"]
        {
            assert_eq!(Incoming::parse(line), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = Incoming::parse(&line);
        }
    }
}
