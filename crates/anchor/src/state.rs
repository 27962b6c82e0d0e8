//! The sealed store of a service, in its state directory: `store.redb`, and beside it `root.key`
//! unless the configuration has the key elsewhere.
//!
//! **Invariant:** a store that is there without its root key is not taken for a new one.

use std::{path::Path, sync::Arc};

use serve::{
    config::{SecretError, SecretSource, own_key},
    fsfile,
};
use store::{KeyId, LocalStore, SealKeys, SealedStore, StoreError, typed::Records};
use thiserror::Error;

/// The store cannot be opened.
#[derive(Debug, Error)]
pub enum StateError {
    /// The directory can neither be made nor used.
    #[error(transparent)]
    Directory(#[from] fsfile::FileError),
    /// The root key can neither be read nor made.
    #[error("the root key cannot be used")]
    Key(#[from] SecretError),
    /// There is a store, and no root key for it.
    #[error("the store is there, its root key is not")]
    RootKeyMissing,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The records in `dir`, sealed under the key from `root_key`, else that in the directory; directory,
/// key and store are made at the first start.
///
/// # Errors
/// [`StateError`], for example if another process has the store open.
pub fn records(root_key: Option<&SecretSource>, dir: &Path) -> Result<Records, StateError> {
    fsfile::create_private_dir(dir)?;
    let (key, file) = (dir.join("root.key"), dir.join("store.redb"));
    if root_key.is_none() && file.exists() && !key.exists() {
        return Err(StateError::RootKeyMissing);
    }
    let root = own_key(root_key, &key)?;
    let store = LocalStore::open(&file)?;
    Ok(Records::new(SealedStore::new(Arc::new(store), SealKeys::new(KeyId(1), root))))
}
