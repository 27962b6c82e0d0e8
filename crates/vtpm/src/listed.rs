//! What the guest is told of PCR banks: those that are allocated, and nothing of the others.
//!
//! libtpms lists every algorithm that it could have a bank of, those without PCRs too, and OVMF then
//! hashes whatever it measures with each of them, for nothing. TPM2_GetCapability(TPM_CAP_PCRS) is
//! therefore answered as by a TPM that supports the allocated banks only. A guest may still allocate
//! others; from then on they are listed.
//!
//! **Invariant:** nothing else of any response is changed; a response under a session (audited or
//! authenticated by the guest) passes as it is.

use crate::control::number_at;

/// A command or response without sessions.
const NO_SESSIONS: &[u8] = &[0x80, 0x01];

const GET_CAPABILITY: u32 = 0x0000_017a;
const CAP_PCRS: u32 = 5;

/// Header, moreData, the capability and the number of banks.
const BANKS_AT: usize = 19;

/// The response that the guest gets.
pub(crate) fn response(command: &[u8], response: Vec<u8>) -> Vec<u8> {
    let asked = command.starts_with(NO_SESSIONS)
        && number_at(command, 6) == Some(GET_CAPABILITY)
        && number_at(command, 10) == Some(CAP_PCRS);
    let answered = response.starts_with(NO_SESSIONS) && number_at(&response, 6) == Some(0);
    if asked && answered { allocated(&response).unwrap_or(response) } else { response }
}

/// The same list without the banks that have no PCR; `None` if it is not such a list.
fn allocated(response: &[u8]) -> Option<Vec<u8>> {
    let (head, mut rest) = response.split_at_checked(BANKS_AT)?;
    let mut count = 0_u32;
    let mut banks = Vec::new();
    for _ in 0..number_at(head, 15)? {
        // Algorithm, size of the map, map of PCRs.
        let length = usize::from(*rest.get(2)?).checked_add(3)?;
        let (bank, after) = rest.split_at_checked(length)?;
        rest = after;
        if bank.get(3..)?.iter().any(|byte| *byte != 0) {
            count = count.checked_add(1)?;
            banks.extend_from_slice(bank);
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let size = u32::try_from(BANKS_AT.checked_add(banks.len())?).ok()?;
    let (tag, code_to_capability) = (head.get(..2)?, head.get(6..15)?);
    Some([tag, &size.to_be_bytes(), code_to_capability, &count.to_be_bytes(), &banks].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(tag: u8, capability: u8) -> Vec<u8> {
        let mut command = vec![0x80, tag, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, capability];
        command.extend([0, 0, 0, 0, 0, 0, 0, 64]);
        command
    }

    fn answer(banks: &[&[u8]]) -> Vec<u8> {
        let body = banks.concat();
        let size = u8::try_from(19 + body.len()).unwrap();
        let count = u8::try_from(banks.len()).unwrap();
        let head = [0x80, 1, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, count];
        [&head[..], &body].concat()
    }

    const SHA1_EMPTY: &[u8] = &[0, 4, 3, 0, 0, 0];
    const SHA256: &[u8] = &[0, 11, 3, 0xff, 0xff, 0xff];
    const SHA384: &[u8] = &[0, 12, 3, 1, 0, 0];

    #[test]
    fn banks_without_pcrs_are_not_listed() {
        let told = response(&command(1, 5), answer(&[SHA1_EMPTY, SHA256, SHA384]));
        assert_eq!(told, answer(&[SHA256, SHA384]));
    }

    #[test]
    fn whatever_else_passes_as_it_is() {
        let all = answer(&[SHA1_EMPTY, SHA256]);
        assert_eq!(response(&command(2, 5), all.clone()), all);
        assert_eq!(response(&command(1, 6), all.clone()), all);
        assert_eq!(response(&[], all.clone()), all);
        let refused = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1];
        assert_eq!(response(&command(1, 5), refused.clone()), refused);
        for length in 0..all.len() {
            let cut = all[..length].to_vec();
            assert_eq!(response(&command(1, 5), cut.clone()), cut);
        }
        let longer = [&all[..], &[0]].concat();
        assert_eq!(response(&command(1, 5), longer.clone()), longer);
    }
}
