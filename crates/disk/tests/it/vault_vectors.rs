//! The vault engine against an implementation that was written from the format's page alone
//! (`vectors/vault`, Python): we open what it wrote and refuse what it altered; it opens what we
//! wrote and refuses what we altered. Skipped aloud where Python has no `cryptography`.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use disk::{
    OpenOptions, Rejection, Volume, VolumeError,
    vault::{Argon2Cost, NewSlot, NewVault, SlotSecret, Suite, VaultVolume, create, open},
};
use model::Secret;
use serde::Deserialize;

use crate::fixture::{Dir, content};

const SLOT: usize = 4096;

#[derive(Deserialize)]
struct Manifest {
    secrets: std::collections::BTreeMap<String, String>,
    volumes: Vec<Described>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    secret: String,
    suite: String,
    size: u64,
    generation: u64,
    anchor_count: u64,
    sha256: String,
    snapshots: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    name: String,
    size: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    volume: String,
    edits: Vec<Edit>,
    refusal: Option<String>,
    when: String,
    #[serde(default)]
    sectors: Vec<u64>,
    secret: Option<String>,
    kmi: Option<String>,
    anchor: Option<u64>,
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Edit {
    at: Option<usize>,
    xor: Option<u8>,
    bytes: Option<String>,
    zeros: Option<usize>,
    from: Option<usize>,
    length: Option<usize>,
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/vault")
}

fn manifest() -> Manifest {
    serde_json::from_slice(&fs::read(vectors().join("manifest.json")).unwrap()).unwrap()
}

impl Manifest {
    fn secret(&self, name: &str) -> Secret<Vec<u8>> {
        Secret::new(hex::decode(&self.secrets[name]).unwrap())
    }

    fn volume(&self, name: &str) -> &Described {
        self.volumes.iter().find(|volume| volume.name == name).unwrap()
    }
}

/// A `.slots` file and its edits as a volume.
fn expand(dir: &Dir, name: &str, edits: &[Edit]) -> PathBuf {
    let packed = fs::read(vectors().join(format!("{name}.slots"))).unwrap();
    let number = |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().unwrap()) as usize;
    let mut original = vec![0; number(0) * SLOT];
    for at in (4..packed.len()).step_by(4 + SLOT) {
        let slot = number(at);
        original[slot * SLOT..][..SLOT].copy_from_slice(&packed[at + 4..][..SLOT]);
    }
    let mut data = original.clone();
    for edit in edits {
        let at = edit.at.unwrap_or(0);
        if let Some(bits) = edit.xor {
            data[at] ^= bits;
        } else if let Some(text) = &edit.bytes {
            let bytes = STANDARD.decode(text).unwrap();
            data.resize(data.len().max(at + bytes.len()), 0);
            data[at..][..bytes.len()].copy_from_slice(&bytes);
        } else if let Some(count) = edit.zeros {
            data[at..][..count].fill(0);
        } else if let Some(from) = edit.from {
            let count = edit.length.unwrap();
            data[at..][..count].copy_from_slice(&original[from..][..count]);
        } else {
            data.truncate(edit.length.unwrap());
        }
    }
    dir.file("volume.vault", &data)
}

fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

fn all(volume: &VaultVolume) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(volume.size()).unwrap()];
    volume.read(0, &mut content).unwrap();
    content
}

fn digest(volume: &VaultVolume) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &all(volume)))
}

#[test]
fn volumes_of_the_independent_writer_read_as_it_says() {
    let manifest = manifest();
    for described in &manifest.volumes {
        let (dir, name) = (Dir::new(), &described.name);
        let path = expand(&dir, name, &[]);
        let secret = manifest.secret(&described.secret);
        let volume = open(&path, &secret, &read_only()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(volume.size(), described.size, "{name}");
        assert_eq!(volume.head().generation, described.generation, "{name}");
        assert_eq!(volume.head().anchor_count, described.anchor_count, "{name}");
        assert_eq!(digest(&volume), described.sha256, "{name}, {}", described.suite);
        drop(volume);
        for kept in &described.snapshots {
            let options = OpenOptions { snapshot: Some(kept.name.clone()), ..read_only() };
            let volume = open(&path, &secret, &options).unwrap();
            assert_eq!((volume.size(), digest(&volume)), (kept.size, kept.sha256.clone()));
        }
        // An attachment for writing takes the log over; nothing is lost by it.
        let volume = open(&path, &secret, &OpenOptions::default()).unwrap();
        assert_eq!(digest(&volume), described.sha256, "{name}, attached for writing");
        volume.close().unwrap();
        drop(volume);
        let volume = open(&path, &secret, &read_only()).unwrap();
        assert_eq!(digest(&volume), described.sha256, "{name}, closed in good order");
    }
}

/// The refusal that `case` meets, if any: on opening, or in what it says is read.
fn refusal(manifest: &Manifest, case: &Case) -> Result<String, String> {
    let (dir, described) = (Dir::new(), manifest.volume(&case.volume));
    let path = expand(&dir, &case.volume, &case.edits);
    let secret = manifest.secret(case.secret.as_ref().unwrap_or(&described.secret));
    let kmi = case.kmi.as_ref().map(|text| serde_json::from_str(text).unwrap());
    let options = OpenOptions { kmi, anchor: case.anchor, ..read_only() };
    let volume = open(&path, &secret, &options).map_err(|error| name(&error))?;
    let mut refusal = None;
    for sector in &case.sectors {
        let at = sector * SLOT as u64;
        let mut buf = vec![0; SLOT.min(usize::try_from(volume.size() - at).unwrap())];
        let Err(error) = volume.read(at, &mut buf) else {
            return Ok(format!("sector {sector} was read"));
        };
        let inner = Rejection::inside(&error);
        refusal = Some(inner.map_or_else(|| format!("{error:?}"), |why| why.code().to_owned()));
    }
    if case.when == "check" {
        volume.check(&mut |_, _| ControlFlow::Continue(())).map_err(|error| name(&error))?;
        return Ok("the check finds nothing".to_owned());
    }
    refusal.map_or_else(|| Ok(digest(&volume)), Err)
}

fn name(error: &VolumeError) -> String {
    error.rejection().map_or_else(|| format!("{error:?}"), |why| why.code().to_owned())
}

#[test]
fn every_tampered_vector_is_refused_by_name() {
    let manifest = manifest();
    let mut wrong = Vec::new();
    for case in &manifest.cases {
        let said = refusal(&manifest, case);
        let right = match (&case.refusal, &said) {
            (Some(wanted), Err(found)) => wanted == found,
            // Without refusal the content is the vector's own or the volume's.
            (None, Ok(found)) => {
                *found == *case.sha256.as_ref().unwrap_or(&manifest.volume(&case.volume).sha256)
            }
            (Some(_), Ok(_)) | (None, Err(_)) => false,
        };
        if !right {
            wrong.push(format!(
                "{} ({}): {said:?}, wanted {:?}",
                case.name, case.when, case.refusal
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), manifest.cases.len(), wrong.join("\n"));
}

#[test]
fn what_a_check_refuses_is_not_opened_for_writing() {
    let manifest = manifest();
    for case in manifest.cases.iter().filter(|case| case.when == "check") {
        let dir = Dir::new();
        let path = expand(&dir, &case.volume, &case.edits);
        let secret = manifest.secret(&manifest.volume(&case.volume).secret);
        let refused = open(&path, &secret, &OpenOptions::default()).unwrap_err();
        assert_eq!(Some(name(&refused)), case.refusal, "{}", case.name);
    }
}

/// A Python with the `cryptography` package.
fn python() -> Option<&'static str> {
    let works = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import cryptography"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(works);
    if found.is_none() {
        eprintln!("Skipped: no Python with the cryptography package (python3-cryptography)");
    }
    found
}

fn run(python: &str, script: &str, args: &[&str]) -> (Option<i32>, String) {
    let path = vectors().join(script);
    let output = Command::new(python).arg("-B").arg(path).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_independent_reader_rejects_every_tampered_vector_and_they_are_what_its_writer_makes() {
    let Some(python) = python() else { return };
    let (code, said) = run(python, "selftest.py", &[]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(python, "make.py", &["--check"]);
    assert_eq!(code, Some(0), "{said}");
}

/// A volume with content, a trim, an unclean end; beside it what it should read as.
fn ours(dir: &Dir, suite: Suite, phrase: bool) -> (Arc<VaultVolume>, PathBuf, Vec<u8>) {
    let path = dir.path("ours.vault");
    let key = Secret::new(b"0123456789abcdef".to_vec());
    let cost = Argon2Cost { memory: 64, passes: 1, lanes: 1 };
    let secret = if phrase {
        SlotSecret::Passphrase { phrase: &key, cost }
    } else {
        SlotSecret::RandomKey(&key)
    };
    let slots = [NewSlot { secret, kmi: None, label: "test" }];
    let size = 300 * SLOT as u64 + 77;
    let new = NewVault {
        path: &path,
        size,
        suite,
        log_bytes: Some(256 << 10),
        label: "ours",
        slots: &slots,
    };
    create(&new).unwrap();
    fs::write(dir.path("key"), key.expose()).unwrap();
    let volume = Arc::new(open(&path, &key, &OpenOptions::default()).unwrap());
    let mut disk = vec![0; usize::try_from(size).unwrap()];
    for (at, length) in [(0, 40 * SLOT), (130 * SLOT + 100, 9000), (300 * SLOT, 77)] {
        let data = content(length);
        disk[at..][..length].copy_from_slice(&data);
        volume.write(at as u64, &mut data.clone()).unwrap();
    }
    volume.flush().unwrap();
    volume.write_zeroes(3 * SLOT as u64, 2 * SLOT as u64).unwrap();
    disk[3 * SLOT..5 * SLOT].fill(0);
    volume.write(7, &mut b"rewritten".to_vec()).unwrap();
    disk[7..16].copy_from_slice(b"rewritten");
    volume.flush().unwrap();
    (volume, path, disk)
}

#[test]
fn the_independent_reader_opens_what_we_wrote_also_before_it_was_closed() {
    let Some(python) = python() else { return };
    for (suite, phrase) in [(Suite::Aes256Gcm, false), (Suite::Aegis256X4, true)] {
        let dir = Dir::new();
        let (volume, path, disk) = ours(&dir, suite, phrase);
        let (out, key, copy) = (dir.path("out"), dir.path("key"), dir.path("copy.vault"));
        let (out, key) = (out.to_str().unwrap(), key.to_str().unwrap());
        let read = |path: &Path| {
            let (code, said) =
                run(python, "reader.py", &["dump", path.to_str().unwrap(), out, "--key-file", key]);
            assert_eq!(code, Some(0), "{suite:?}: {said}");
            assert!(fs::read(out).unwrap() == disk, "{suite:?}: the content differs");
        };
        fs::copy(&path, &copy).unwrap();
        read(&copy);
        volume.close().unwrap();
        drop(volume);
        read(&path);
    }
}

#[test]
fn the_independent_reader_refuses_a_flipped_bit_in_what_we_wrote() {
    let Some(python) = python() else { return };
    let dir = Dir::new();
    let (volume, path, _) = ours(&dir, Suite::Aes256Gcm, false);
    volume.close().unwrap();
    drop(volume);
    // Sector 1 was written once, so it is where the first version of a sector goes: D + 1.
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let at = ((256 + 64 + 1) * SLOT + 5) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let key = dir.path("key");
    let args = ["check", path.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    let (code, said) = run(python, "reader.py", &args);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("\"byte\": 4096") && said.contains("sector-damaged"), "{said}");
}
