//! Where things are in the state directory. Secrets in it are sealed under the root key, except the
//! first operator's key, which belongs to a person who carries it away.

use std::path::{Path, PathBuf};

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Paths(PathBuf);

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        impl Paths {
            $($(#[$doc])*
            pub(crate) fn $name(&self) -> PathBuf {
                self.0.join($file)
            })*
        }
    };
}

files! {
    /// The root key, sealed by the TPM.
    root = "root-key.json";
    /// Written last by `init`: everything is there.
    marker = "authority.json";
    /// Certificate of the root CA: what clients trust.
    ca = "ca.pem";
    /// Its key, sealed.
    ca_key = "ca.key.sealed";
    /// Certificate of the CA that certifies virtual TPMs.
    vtpm_ca = "vtpm-ca.pem";
    /// Its key, sealed.
    vtpm_ca_key = "vtpm-ca.key.sealed";
    /// The key that signs verdicts, grants and checkpoints, sealed.
    signing_key = "signing.key.sealed";
    /// Its public half.
    signing_public = "signing.pub";
    /// The HPKE key pair that hosts seal deposits to, sealed.
    deposit_key = "deposit.key.sealed";
    /// The first operator's certificate.
    operator = "operator.pem";
    /// The first operator's key.
    operator_key = "operator.key";
    /// The store.
    store = "store.redb";
    /// The audit log's directory.
    audit = "audit";
    /// The store's signed head.
    head = "head.json";
    /// The last appraised evidence of each VM.
    evidence = "evidence";
}

impl Paths {
    /// The state directory at `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }
}
