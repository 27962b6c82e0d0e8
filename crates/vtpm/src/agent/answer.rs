//! What each request does.

use std::collections::BTreeMap;

use model::{
    Epoch, HashAlg, Nonce, PcrBanks, VmId,
    child::vtpm::{PcrValue, Quoted, Reply, Request, Status, VERSION},
};
use tpm::{
    PCR_COUNT, PcrSelection, PcrValues, Purpose, QualifyingData, Quote, ResponseCode, Tpm, handle,
};

use super::RequestError;
use crate::{
    manufacture,
    observed::{Power, carried::Carried},
    vtpm::{Known, Vtpm},
};

/// Does a request.
pub(super) fn reply(vtpm: &Vtpm, request: Request) -> Result<Reply, RequestError> {
    match request {
        Request::Hello { version } if version != VERSION => Err(RequestError::Version(version)),
        Request::Hello { .. } => Ok(Reply::Hello {
            version: VERSION,
            pid: std::process::id(),
            swtpm_pid: vtpm.swtpm_pid,
        }),
        Request::Status {} => Ok(Reply::Status(status(vtpm))),
        Request::Manufacture { rsa, banks } => manufacture(vtpm, rsa, &banks),
        Request::InstallCertificates { ek_p256, ek_rsa } => install(vtpm, &ek_p256, &ek_rsa),
        Request::Quote { nonce, vm, epoch, pcrs, from } => {
            let wanted =
                Wanted { qualifying: bind(&nonce, &vm, epoch), pcrs: select(&pcrs)?, from };
            quote(vtpm, &wanted).map(|quoted| Reply::Quote(Box::new(quoted)))
        }
        Request::Observed { from } => Ok(Reply::Observed(vtpm.turns.take().recorder.read(from))),
        Request::Shutdown {} => Ok(Reply::Done {}),
    }
}

fn status(vtpm: &Vtpm) -> Status {
    let machine = vtpm.turns.take();
    let recorder = &machine.recorder;
    Status {
        manufactured: vtpm.is_manufactured(),
        qemu_connected: vtpm.has_qemu(),
        generation: recorder.generation(),
        entries: recorder.len(),
        overflowed: recorder.overflowed(),
        unobservable: recorder.unobservable().is_some(),
    }
}

fn manufacture(vtpm: &Vtpm, rsa: bool, banks: &PcrBanks) -> Result<Reply, RequestError> {
    let identity = {
        let mut machine = vtpm.turns.take();
        if vtpm.has_qemu() || machine.recorder.power() != Power::Off {
            return Err(RequestError::Running);
        }
        machine.alone(|tpm| manufacture::make(tpm, &vtpm.keys, rsa, banks))?
    };
    vtpm.mark_manufactured().map_err(crate::vtpm::MachineError::from)?;
    Ok(Reply::Manufactured(identity))
}

fn install(vtpm: &Vtpm, ek_p256: &[u8], ek_rsa: &[u8]) -> Result<Reply, RequestError> {
    let mut machine = vtpm.turns.take();
    if vtpm.has_qemu() || machine.recorder.power() != Power::Off {
        return Err(RequestError::Running);
    }
    machine.alone(|tpm| {
        manufacture::install(tpm, handle::EK_CERT_P256, ek_p256)?;
        manufacture::install(tpm, handle::EK_CERT_RSA, ek_rsa)
    })?;
    vtpm.sync().map_err(crate::vtpm::MachineError::from)?;
    Ok(Reply::Done {})
}

fn bind(nonce: &Nonce, vm: &VmId, epoch: Epoch) -> QualifyingData {
    let parts = [vm.as_str().as_bytes(), &epoch.0.to_be_bytes()];
    QualifyingData::bind(Purpose::GuestAttest, nonce, &parts)
}

fn select(pcrs: &BTreeMap<HashAlg, Vec<u8>>) -> Result<PcrSelection, RequestError> {
    let mut selection = PcrSelection::none();
    for (alg, pcrs) in pcrs {
        if pcrs.iter().any(|pcr| *pcr >= PCR_COUNT) {
            return Err(RequestError::Bad("a PCR is 0 to 23"));
        }
        selection = selection.with(*alg, pcrs);
    }
    if selection.is_empty() { Err(RequestError::Bad("no PCR is selected")) } else { Ok(selection) }
}

/// What a quote is asked for.
struct Wanted {
    qualifying: QualifyingData,
    pcrs: PcrSelection,
    from: u64,
}

/// Quote and list in one turn.
fn quote(vtpm: &Vtpm, wanted: &Wanted) -> Result<Quoted, RequestError> {
    let mut machine = vtpm.turns.take();
    if machine.recorder.power() != Power::Started {
        return Err(RequestError::Resetting);
    }
    let mut known = machine.known.take();
    let carried = known.as_mut().and_then(|known| known.pcrs.take());
    let expected = carried.map_or_else(PcrValues::new, |of| of.now(&machine.recorder));
    let (known, quote) = machine.inject(|tpm| quote_now(tpm, vtpm, (known, expected), wanted))?;
    let banks = known.banks.clone();
    let pcrs = Some(Carried::new(&machine.recorder, quote.pcrs.clone()));
    machine.known = Some(Known { pcrs, ..known });
    Ok(Quoted {
        attest: quote.attest,
        signature: quote.signature,
        pcrs: quote.pcrs.iter().map(|(pcr, value)| PcrValue { pcr, value: *value }).collect(),
        banks,
        observed: machine.recorder.read(wanted.from),
    })
}

fn quote_now(
    tpm: &mut Tpm,
    vtpm: &Vtpm,
    (known, expected): (Option<Known>, PcrValues),
    wanted: &Wanted,
) -> Result<(Known, Quote), RequestError> {
    let known = match known {
        Some(known) => known,
        None => Known {
            ak: tpm.persistent(handle::VTPM_AK)?.ok_or(RequestError::NotManufactured)?,
            banks: tpm.pcr_banks()?,
            pcrs: None,
        },
    };
    if wanted.pcrs.iter().any(|(alg, _)| !known.banks.contains(&alg)) {
        return Err(RequestError::Bad("a bank is not allocated"));
    }
    let auth_value = &vtpm.keys.auth_value;
    let (qualifying, pcrs) = (&wanted.qualifying, &wanted.pcrs);
    match tpm.quote_expecting(&known.ak, auth_value, qualifying, pcrs, expected) {
        Ok(quote) => Ok((known, quote)),
        // Firmware with platform authorization removed it.
        Err(error) if error.code().is_some_and(ResponseCode::is_no_such_handle) => {
            Err(RequestError::NotManufactured)
        }
        Err(error) => Err(error.into()),
    }
}
