//! What the agent and `vouchsafe-disk` say to each other: requests on the control socket, and the
//! lines that `create` prints on its standard output, one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::{Digest, Kmi};

/// Version of these messages; told in [`Status::protocol`].
pub const PROTOCOL: u32 = 1;

/// What the agent asks of a serving disk process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it stands; answered by [`Reply::Status`].
    Status {},
    /// Make every completed write durable; answered by [`Reply::Flushed`].
    Flush {},
    /// Make every completed write durable under a header that carries this anchor count; answered
    /// by [`Reply::Advanced`]. Volumes of other formats than vault fail it as `no-anchor`.
    Advance {
        /// One more than the counter is now.
        count: u64,
    },
    /// Seal everything anew, in the background, under a fresh data key of this epoch, which the
    /// process makes and keeps under the volume's own key; answered by [`Reply::Rekeying`]. The
    /// epoch is one more than [`Status::epoch`] was when it was decided. One that has been reached
    /// changes nothing, so that the question can be asked again. Other formats than vault fail it as
    /// `not-vault`, an epoch that is neither as `epoch-unfit`.
    Rekey {
        /// Of the data key from then on.
        epoch: u32,
    },
    /// Finish what was received, flush and end; answered by [`Reply::ShuttingDown`] before it ends.
    Shutdown {},
}

/// What the disk process answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// The volume was flushed.
    Flushed {},
    /// The header in force carries this count, durably.
    Advanced {
        /// The count.
        count: u64,
        /// SHA-256 of the header.
        head: Digest,
    },
    /// The volume is being sealed anew, or has been: [`Status::rekeying`] says how far it is.
    Rekeying {},
    /// The process ends once it has flushed.
    ShuttingDown {
        /// The counters as they stood.
        counters: Counters,
    },
    /// The request was understood and could not be done.
    Failed {
        /// A kebab-case name.
        code: String,
        /// In words, without secrets.
        detail: String,
    },
}

/// How a serving disk process stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// [`PROTOCOL`] of the process.
    pub protocol: u32,
    /// Its process id.
    pub pid: u32,
    /// Volume format, `luks2`.
    pub format: String,
    /// Exported size in bytes.
    pub size: u64,
    /// Encryption sector in bytes.
    pub sector_size: u32,
    /// The export refuses writes.
    pub read_only: bool,
    /// A copy of the volume's header was damaged and the other one was used.
    pub header_damaged: Option<String>,
    /// Key-management information found in the volume's header.
    pub kmi: Option<Kmi>,
    /// A flush failed; until the volume is opened again every flush is answered with an error.
    pub flush_failed: bool,
    /// The count of the header in force, if the volume is a vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor_count: Option<u64>,
    /// Number of the present data key, if the volume is a vault: 1 at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Data of the epoch before are left: how far it is with sealing them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekeying: Option<Rekeying>,
    /// The first thing that a request of the guest met and that is not authentic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
    /// What was done since the start.
    pub counters: Counters,
}

/// How far a disk process is with sealing a volume anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rekeying {
    /// Its data key is in force already; else it is about to be.
    pub begun: bool,
    /// Pages that were looked through since the process began.
    pub done: u64,
    /// Pages in all; 0 while that is not known.
    pub total: u64,
    /// Why it has stopped, if it has; asked for again it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// Why something has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// Name of the refusal; absent if it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// In words.
    pub detail: String,
}

/// Something in a volume that is not authentic; the request was answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// Name of the refusal: `sector-damaged`, `page-damaged`.
    pub code: String,
    /// Byte of the disk.
    pub position: u64,
    /// In words.
    pub detail: String,
}

/// Counts since the process began to serve. Bytes are of plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Connections open now.
    pub connections: u64,
    /// Connections that were accepted.
    pub connections_accepted: u64,
    /// Connections that were refused: wrong user, too many, malformed.
    pub connections_refused: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Flush requests, and requests with the FUA flag.
    pub flushes: u64,
    /// Trim requests.
    pub trims: u64,
    /// Write-zeroes requests.
    pub zeroes: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

/// One line on the standard output of `vouchsafe-disk create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Progress {
    /// The work begins.
    Started {
        /// Bytes of plaintext that will be encrypted; 0 for an empty volume.
        total: u64,
    },
    /// So many bytes are encrypted and written.
    Written {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The volume is complete, durable, and under its name.
    Done {
        /// Exported size in bytes.
        size: u64,
        /// UUID in the volume's header.
        uuid: String,
        /// SHA-256 of the source as it was read, if there was one.
        source: Option<Digest>,
    },
    /// A rule said no (exit status 3); nothing is left behind.
    Refused {
        /// A kebab-case name.
        code: String,
        /// In words.
        detail: String,
    },
    /// It could not be done (exit status 1); nothing is left behind.
    Failed {
        /// In words.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_tagged_objects_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&Request::Status {}).unwrap();
        assert_eq!(text, r#"{"request":"status"}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), Request::Status {});
        assert!(serde_json::from_str::<Request>(r#"{"request":"status","x":1}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"format"}"#).is_err());
    }

    #[test]
    fn progress_lines_round_trip() {
        let line = Progress::Done {
            size: 4096,
            uuid: "u".to_owned(),
            source: Some(Digest::sha256([1; 32])),
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), line);
    }
}
