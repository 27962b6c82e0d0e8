//! Both back ends pass the suite.

use std::sync::Arc;

use store::{LocalStore, Store, conformance};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_conforms() {
    let make = async || Arc::new(LocalStore::memory().unwrap()) as Arc<dyn Store>;
    conformance::run(make).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_file_conforms() {
    let mut dirs: Vec<TempDir> = Vec::new();
    let make = async || {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&dir.path().join("store.redb")).unwrap();
        dirs.push(dir);
        Arc::new(store) as Arc<dyn Store>
    };
    conformance::run(make).await.unwrap();
}
