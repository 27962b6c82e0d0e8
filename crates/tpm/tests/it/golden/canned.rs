//! A TPM of fixed answers, for golden bytes of the commands that need an object, an index or a
//! session; and which octets of a command are random, so that the rest can be compared.

use std::sync::PoisonError;

use tpm::{
    Auth, AuthValue, Comparison, Credential, Duplicate, Hierarchy, ImportBlob, KeyBlob,
    NvAttributes, NvPublic, PcrSelection, PcrValues, Policy, Public, Purpose, QualifyingData,
    Signature, Tpm, Transport, TransportError, handle, template,
};

use super::Log;

/// The base point of P-256, which every implementation takes for a public key.
const POINT: [&[u8; 32]; 2] = [
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96",
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5",
];

/// Answers some commands, always alike, and refuses the others with TPM_RC_FAILURE.
pub(super) struct Canned {
    pub(super) log: Log,
}

impl Transport for Canned {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(command.to_vec());
        let first = u32::from_be_bytes(command[10..14].try_into().unwrap_or_default());
        Ok(match command[9] {
            // StartAuthSession: a handle and nonceTPM.
            0x76 => answer(&[&[3, 0, 0, 0], &sized(&[5; 32])]),
            // ReadPublic: area, Name, qualified Name.
            0x73 => {
                let public = key(first);
                let name = sized(public.name().as_bytes());
                answer(&[&public.to_sized(), &name, &name])
            }
            // NV_ReadPublic.
            0x69 => answer(&[&sized(&index_area()), &sized(index().name().as_bytes())]),
            // PolicyGetDigest: what an EK's policy leads to.
            0x89 => answer(&[&sized(key(handle::EK).policy())]),
            // PolicySecret, with a password: no timeout, a null ticket; then the authorization.
            0x51 => {
                let parameters = [0, 0, 0x80, 0x23, 0x40, 0, 0, 7, 0, 0];
                let plain = answer(&[&[0, 0, 0, 10], &parameters, &[0, 0, 1, 0, 0]]);
                [&[0x80, 2], &plain[2..]].concat()
            }
            // VerifySignature: a ticket.
            0x77 => answer(&[&[0x80, 0x22, 0x40, 0, 0, 1], &sized(&[7; 32])]),
            // LoadExternal, ContextLoad: a handle.
            0x67 | 0x61 => answer(&[&[0x80, 0, 0, 1], &[0, 0]]),
            // ContextSave: sequence, handle, hierarchy, blob.
            0x62 => answer(&[&[8; 8], &[0x80, 0, 0, 0, 0x40, 0, 0, 1], &sized(&[9; 16])]),
            // Policy commands without an authorization, FlushContext.
            0x65 | 0x6b | 0x6d | 0x7f | 0x88 => answer(&[]),
            _ => vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1],
        })
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn answer(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 10).unwrap();
    [&[0x80, 1][..], &length.to_be_bytes(), &[0; 4], &body].concat()
}

/// The key at a persistent handle: the template of its kind with a public point.
fn key(at: u32) -> Public {
    let template = match at {
        handle::EK => template::ek_p256(),
        handle::SRK => template::srk_p256(),
        _ => template::ak_p256(),
    };
    let area = template.as_bytes();
    // The unique field is empty in each coordinate, or zeros.
    let unique = if area.ends_with(&[0; 32]) { 68 } else { 4 };
    let point = [sized(POINT[0]), sized(POINT[1])].concat();
    Public::parse(&[&area[..area.len() - unique], &point].concat()).unwrap()
}

fn index() -> NvPublic {
    NvPublic {
        index: handle::GUARD_COUNTER,
        attributes: NvAttributes::OWNER_COUNTER,
        policy: Vec::new(),
        size: 8,
    }
}

fn index_area() -> Vec<u8> {
    let index = index();
    let (at, attributes) = (index.index.to_be_bytes(), index.attributes.0.to_be_bytes());
    [&at[..], &[0, 0x0b], &attributes, &[0, 0], &index.size.to_be_bytes()].concat()
}

/// Each command that needs an object, an index or a session.
pub(super) fn everything_with_objects(tpm: &mut Tpm) {
    let empty = AuthValue::empty();
    let auth = AuthValue::new(b"auth").unwrap();
    let [ek, srk, ak] =
        [handle::EK, handle::SRK, handle::HOST_AK].map(|at| tpm.persistent(at).unwrap().unwrap());
    let purpose = QualifyingData::bind(Purpose::Enrol, &model::Nonce([3; 32]), &[]);
    let mut values = PcrValues::new();
    values.insert(0, model::Digest::sha256([4; 32]));
    let selection = PcrSelection::sha256(&[0]);
    let _ = tpm.quote_expecting(&ak, &auth, &purpose, &selection, values);
    let _ = tpm.certify(&srk, &empty, &ak, &auth, &purpose);
    let _ = tpm.create(&srk, Auth::none(), &template::ak_p256(), &auth, b"data");
    let public = srk.public().clone();
    let blob = KeyBlob { public: public.clone(), private: vec![1; 8] };
    let _ = tpm.load(&srk, Auth::none(), &blob);
    let import = ImportBlob { public, duplicate: vec![2; 8], encrypted_seed: vec![3; 8] };
    let _ = tpm.import(&srk, &import);
    let _ = tpm.unseal_with(&ak, Auth::Password(&auth));
    let saved = tpm.save_context(&ak).unwrap();
    let loaded = tpm.load_context(&saved, ak.public().clone()).unwrap();
    let _ = tpm.persist(Hierarchy::Owner, Auth::none(), &loaded, handle::HOST_AK);
    let _ = tpm.flush(&loaded);
    let at = index().index;
    let _ = tpm.nv_increment(None, Auth::Password(&auth), at);
    let _ = tpm.nv_read(Some(Hierarchy::Owner), &mut Auth::none(), at);
    let _ = tpm.nv_write(Some(Hierarchy::Owner), &mut Auth::none(), at, b"data");
    let _ = tpm.nv_write_lock(None, Auth::none(), at);
    let _ = tpm.nv_undefine(Hierarchy::Owner, Auth::none(), at);
    let steps = [
        Policy::new().pcr_digest(&selection, [4; 32]),
        Policy::new().reset_count(Comparison::AtLeast, 7),
        Policy::new().nv(&index(), &auth, Comparison::Equal, &[0; 8], 0),
        Policy::new().authorize(ak.public(), b"ref", Some(Signature::from_p1363([1; 64]))),
        Policy::new().auth_value(),
    ];
    for policy in &steps {
        let mut session = tpm.start_policy_session(None).unwrap();
        let _ = policy.satisfy(tpm, &mut session);
    }
    let made = Credential { id_object: vec![1; 8], encrypted_seed: vec![2; 8] };
    // PolicySecret, which must go well before the activation.
    let _ = tpm.activate_credential(&ak, &auth, &ek, &empty, &made);
    let mut session = tpm.start_hmac_session(&srk).unwrap();
    let _ = tpm.change_hierarchy_auth(Hierarchy::Lockout, &mut session, &empty, &auth);
    let mut session = tpm.start_policy_session(None).unwrap();
    let select = Policy::new().duplication(ak.name(), srk.name());
    let _ = select.satisfy(tpm, &mut session);
    let _ = tpm.duplicate(&ak, &mut session, &srk);
    let _ = tpm.import_duplicate(&srk, &Duplicate { blob: import, inner: vec![7; 16].into() });
    let mut session = tpm.start_hmac_session(&srk).unwrap();
    let _ = tpm.ecdh_zgen(&ak, &mut session, (POINT[0], POINT[1]));
}

/// A command in hexadecimal, with `..` for what is random: the caller's nonces and salts, the HMACs
/// of sessions, and parameters that a session encrypts.
pub(super) fn shown(command: &[u8]) -> String {
    let mut hidden = vec![false; command.len()];
    let number = |at: usize, bytes: usize| {
        command[at..at + bytes].iter().fold(0_usize, |all, byte| all << 8 | usize::from(*byte))
    };
    // Hides the content of the TPM2B at `at`; returns what follows it.
    let mut hide = |at: usize, really: bool| {
        let end = at + 2 + number(at, 2);
        hidden[at + 2..end].iter_mut().for_each(|octet| *octet |= really);
        end
    };
    if command[9] == 0x76 {
        let salt = hide(18, true);
        hide(salt, true);
    }
    if command[..2] == [0x80, 0x02] {
        let area = 10 + 4 * handles(command[9]);
        let end = area + 4 + number(area, 4);
        let (mut at, mut encrypted) = (area + 4, false);
        while at < end {
            let session = number(at, 4) != 0x4000_0009;
            let attributes = hide(at + 4, session);
            encrypted |= command[attributes] & 0x20 != 0;
            at = hide(attributes + 1, session);
        }
        if encrypted {
            hide(end, true);
        }
    }
    let octet = |(byte, hidden): (&u8, &bool)| match hidden {
        true => "..".to_owned(),
        false => format!("{byte:02x}"),
    };
    command.iter().zip(&hidden).map(octet).collect()
}

/// How many handles come before the authorizations (TPM 2.0 Library, part 3).
const fn handles(code: u8) -> usize {
    match code {
        0x7b => 0,
        // EvictControl, NV_UndefineSpace, NV_Increment, NV_Write, NV_WriteLock, ActivateCredential,
        // Certify, Duplicate, NV_Read, PolicySecret.
        0x20 | 0x22 | 0x34 | 0x37 | 0x38 | 0x47 | 0x48 | 0x4b | 0x4e | 0x51 => 2,
        // PolicyNV.
        0x49 => 3,
        _ => 1,
    }
}
