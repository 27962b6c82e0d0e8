//! Types of events (TCG PC Client Platform Firmware Profile, table 27) by their TCG names.

use std::fmt;

/// The type of an event, any value; the known ones have names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl EventType {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The TCG's name, if the type is known.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    /// Pre-boot certificate: reserved.
    PREBOOT_CERT = 0x0, "EV_PREBOOT_CERT";
    /// Power-on self-test code.
    POST_CODE = 0x1, "EV_POST_CODE";
    /// Informative; never extended.
    NO_ACTION = 0x3, "EV_NO_ACTION";
    /// Ends the pre-OS events of a PCR, or tells of an error.
    SEPARATOR = 0x4, "EV_SEPARATOR";
    /// An action, as text.
    ACTION = 0x5, "EV_ACTION";
    /// Tagged data, as operating systems and loaders write it.
    EVENT_TAG = 0x6, "EV_EVENT_TAG";
    /// Content of the static root of trust.
    S_CRTM_CONTENTS = 0x7, "EV_S_CRTM_CONTENTS";
    /// Version of the static root of trust.
    S_CRTM_VERSION = 0x8, "EV_S_CRTM_VERSION";
    /// Processor microcode.
    CPU_MICROCODE = 0x9, "EV_CPU_MICROCODE";
    /// Platform settings.
    PLATFORM_CONFIG_FLAGS = 0xa, "EV_PLATFORM_CONFIG_FLAGS";
    /// Table of devices.
    TABLE_OF_DEVICES = 0xb, "EV_TABLE_OF_DEVICES";
    /// Compact hash.
    COMPACT_HASH = 0xc, "EV_COMPACT_HASH";
    /// Initial program loader: what boot loaders write; in the lab, each of our binaries.
    IPL = 0xd, "EV_IPL";
    /// Data of the loader's partition.
    IPL_PARTITION_DATA = 0xe, "EV_IPL_PARTITION_DATA";
    /// Code that is not the host's.
    NONHOST_CODE = 0xf, "EV_NONHOST_CODE";
    /// Settings that are not the host's.
    NONHOST_CONFIG = 0x10, "EV_NONHOST_CONFIG";
    /// Information that is not the host's.
    NONHOST_INFO = 0x11, "EV_NONHOST_INFO";
    /// Boot devices were omitted.
    OMIT_BOOT_DEVICE_EVENTS = 0x12, "EV_OMIT_BOOT_DEVICE_EVENTS";
    /// Base of the EFI types.
    EFI_EVENT_BASE = 0x8000_0000, "EV_EFI_EVENT_BASE";
    /// A variable that configures drivers (Secure Boot).
    EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001, "EV_EFI_VARIABLE_DRIVER_CONFIG";
    /// A boot variable.
    EFI_VARIABLE_BOOT = 0x8000_0002, "EV_EFI_VARIABLE_BOOT";
    /// An application that firmware starts.
    EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION";
    /// A boot-time driver.
    EFI_BOOT_SERVICES_DRIVER = 0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER";
    /// A run-time driver.
    EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005, "EV_EFI_RUNTIME_SERVICES_DRIVER";
    /// The partition table.
    EFI_GPT_EVENT = 0x8000_0006, "EV_EFI_GPT_EVENT";
    /// An action of firmware, as text.
    EFI_ACTION = 0x8000_0007, "EV_EFI_ACTION";
    /// A volume of firmware.
    EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB";
    /// Tables handed over.
    EFI_HANDOFF_TABLES = 0x8000_0009, "EV_EFI_HANDOFF_TABLES";
    /// A volume of firmware, with a description.
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000a, "EV_EFI_PLATFORM_FIRMWARE_BLOB2";
    /// Tables handed over, with a description.
    EFI_HANDOFF_TABLES2 = 0x8000_000b, "EV_EFI_HANDOFF_TABLES2";
    /// A boot variable, hashed by its data alone.
    EFI_VARIABLE_BOOT2 = 0x8000_000c, "EV_EFI_VARIABLE_BOOT2";
    /// The partition table, without what differs per disk.
    EFI_GPT_EVENT2 = 0x8000_000d, "EV_EFI_GPT_EVENT2";
    /// Hardware-made start of the root of trust.
    EFI_HCRTM_EVENT = 0x8000_0010, "EV_EFI_HCRTM_EVENT";
    /// The authority by which an image was allowed (Secure Boot).
    EFI_VARIABLE_AUTHORITY = 0x8000_00e0, "EV_EFI_VARIABLE_AUTHORITY";
    /// Firmware of a device.
    EFI_SPDM_FIRMWARE_BLOB = 0x8000_00e1, "EV_EFI_SPDM_FIRMWARE_BLOB";
    /// Settings of a device.
    EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00e2, "EV_EFI_SPDM_FIRMWARE_CONFIG";
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type 0x{:08x}", self.0),
        }
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
