//! Extends whose content does not depend on the image: separators, boot actions, empty Secure
//! Boot variables (TCG PC Client Platform Firmware Profile, section 10).

use super::{Predicted, Presence};

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c, in memory order.
const GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];
/// EFI_IMAGE_SECURITY_DATABASE_GUID, d719b2cb-3d3a-4596-a3bc-dad00e67656f, in memory order.
const SECURITY_DATABASE: [u8; 16] = [
    0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
];

/// EV_SEPARATOR: four zero bytes.
pub(super) fn separator(pcr: u8) -> Predicted {
    Predicted::of(pcr, &[0; 4], "separator")
}

/// PCR 7 of firmware whose variables hold no Secure Boot keys, up to its separator.
pub(super) fn secure_boot_off() -> Vec<Predicted> {
    let variables: [(&str, [u8; 16], &[u8]); 5] = [
        ("SecureBoot", GLOBAL_VARIABLE, &[0]),
        ("PK", GLOBAL_VARIABLE, &[]),
        ("KEK", GLOBAL_VARIABLE, &[]),
        ("db", SECURITY_DATABASE, &[]),
        ("dbx", SECURITY_DATABASE, &[]),
    ];
    let mut entries: Vec<_> = variables
        .into_iter()
        .map(|(name, vendor, value)| {
            Predicted::of(7, &variable(vendor, name, value), format!("variable {name}"))
        })
        .collect();
    entries.push(separator(7));
    entries
}

/// PCR 4 before the boot option runs.
pub(super) fn boot_option() -> Predicted {
    Predicted::of(4, b"Calling EFI Application from Boot Option", "boot option")
}

/// PCR 5 when the kernel takes over. A kernel whose memory map went stale tries again.
pub(super) fn exit_boot_services() -> Vec<Predicted> {
    let invocation = b"Exit Boot Services Invocation".as_slice();
    let failure = b"Exit Boot Services Returned with Failure".as_slice();
    let success = b"Exit Boot Services Returned with Success".as_slice();
    let optional =
        |data, name| Predicted { presence: Presence::Optional, ..Predicted::of(5, data, name) };
    vec![
        Predicted::of(5, invocation, "exit boot services"),
        optional(failure, "exit boot services failed"),
        optional(invocation, "exit boot services again"),
        Predicted::of(5, success, "boot services left"),
    ]
}

/// UEFI_VARIABLE_DATA: vendor, name length in characters, value length, UTF-16 name, value.
fn variable(vendor: [u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let mut data = vendor.to_vec();
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(name.into_iter().flat_map(u16::to_le_bytes));
    data.extend(value);
    data
}
