//! Outside programs, and keys made by one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Whether `program` is here; says so aloud if it is not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("Skipped: {program} is not installed");
    }
    found
}

/// Runs `program`; its standard output, or everything it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&said).into_owned())
}

/// The folder of the W3C's files, which are not part of this repository.
pub(crate) fn w3c() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/xkms");
    let found = folder.join("xkms.xsd").is_file();
    if !found {
        eprintln!("Skipped: the W3C schema is not there");
    }
    found.then_some(folder)
}

/// A schema that takes in the W3C's and our own extension.
pub(crate) fn with_ours(w3c: &Path, folder: &Path) -> String {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/knowledge.xsd");
    let text = format!(
        "<schema xmlns='http://www.w3.org/2001/XMLSchema'>\
         <import namespace='http://www.w3.org/2002/03/xkms#' schemaLocation='{}'/>\
         <import namespace='urn:vouchsafe:xkms:1' schemaLocation='{}'/></schema>",
        w3c.join("xkms.xsd").display(),
        ours.display(),
    );
    let path = folder.join("all.xsd");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A key pair in files, and what `xmlsec1` is told to use it.
pub(crate) struct KeyFiles {
    pub(crate) signing: Vec<u8>,
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
}

/// Makes a key with `openssl genpkey`.
pub(crate) fn key(folder: &Path, name: &str, arguments: &[&str]) -> KeyFiles {
    let path = |end: &str| folder.join(format!("{name}.{end}"));
    let (private, public, der) = (path("pem"), path("pub"), path("der"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (private_text, public_text, der_text) = (text(&private), text(&public), text(&der));
    run("openssl", &[&["genpkey", "-out", &private_text], arguments].concat()).unwrap();
    run("openssl", &["pkey", "-in", &private_text, "-pubout", "-out", &public_text]).unwrap();
    let convert =
        ["pkcs8", "-topk8", "-nocrypt", "-in", &private_text, "-outform", "DER", "-out", &der_text];
    run("openssl", &convert).unwrap();
    KeyFiles { signing: fs::read(der).unwrap(), private, public }
}
