//! Configuration: a TOML file and the `*.toml` files of its `.d` directory, which refine it.
//!
//! `host.toml` is read first, then `host.d/*.toml` in the order of their names; tables are merged
//! key by key, everything else is replaced. Types should have `#[serde(deny_unknown_fields)]`, so
//! that a misspelt key is an error with file and line. `--check-config` is [`load`] and the
//! program's own checks, before anything binds. Secrets are never in here, only where to
//! read them: [`SecretSource`].

use std::path::{Path, PathBuf};

use model::Secret;
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use toml::{Table, Value};

use crate::{
    fsfile::{self, FileError},
    process::{self, SpawnError},
    random,
};

/// Longest configuration file.
const LIMIT: usize = 1 << 20;
/// Longest secret in a file of the process's own.
const OWN_LIMIT: usize = 4096;

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The `.d` directory cannot be listed.
    #[error("cannot list {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Not UTF-8.
    #[error("{} is not UTF-8 text", .0.display())]
    Text(PathBuf),
    /// Malformed, an unknown key or a wrong value, in this line of this file.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, with the key.
        message: String,
    },
    /// All files together lack a key or do not fit.
    #[error("{}: {message}", path.display())]
    Whole {
        /// The main file.
        path: PathBuf,
        /// What is wrong, with the key.
        message: String,
    },
}

/// Reads the configuration `path` and its `.d` directory.
///
/// # Errors
/// [`ConfigError`] names file, line and key.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let mut files = vec![path.to_owned()];
    files.extend(refinements(&path.with_extension("d"))?);
    let mut texts = Vec::new();
    let mut merged = Table::new();
    for file in files {
        let text = String::from_utf8(fsfile::read_limited(&file, LIMIT)?)
            .map_err(|_| ConfigError::Text(file.clone()))?;
        let table: Table = toml::from_str(&text).map_err(|e| in_line(&file, &text, &e))?;
        merge(&mut merged, table);
        texts.push((file, text));
    }
    T::deserialize(Value::Table(merged)).map_err(|error| locate::<T>(path, &texts, &error))
}

/// The `*.toml` files of a directory by name; none if it does not exist.
fn refinements(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Directory { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|end| end == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The merged table has no lines, so the file at fault is found by reading each alone; that one of
/// them lacks a key which another has is then no fault.
fn locate<T: DeserializeOwned>(
    path: &Path,
    texts: &[(PathBuf, String)],
    error: &toml::de::Error,
) -> ConfigError {
    for (file, text) in texts {
        if let Err(alone) = toml::from_str::<T>(text)
            && !alone.message().starts_with("missing field")
        {
            return in_line(file, text, &alone);
        }
    }
    ConfigError::Whole { path: path.to_owned(), message: error.to_string().trim().to_owned() }
}

fn in_line(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let key = text.lines().nth(line - 1).unwrap_or_default().trim();
    let message = format!("{} (at `{key}`)", error.message());
    ConfigError::Line { path: path.to_owned(), line, message }
}

/// Where a secret is read from: `{ path = "/etc/vouchsafe/key" }` or `{ fd = 3 }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file of this user that is closed to others.
    Path(PathBuf),
    /// A descriptor that the parent process left open.
    Fd(i32),
}

/// A secret cannot be read.
#[derive(Debug, Error)]
pub enum SecretError {
    /// From its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// From its descriptor.
    #[error(transparent)]
    Descriptor(#[from] SpawnError),
    /// It does not have 32 octets.
    #[error("the key does not have 32 octets")]
    Length,
    /// It could not be made.
    #[error("no randomness for a key")]
    Random(#[source] random::RandomError),
}

impl SecretSource {
    /// Reads the secret, at most `limit` bytes. A descriptor can be read once.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(&self, limit: usize) -> Result<Secret<Vec<u8>>, SecretError> {
        Ok(match self {
            Self::Path(path) => fsfile::read_secret(path, limit)?,
            Self::Fd(number) => process::read_secret_fd(*number, limit)?,
        })
    }
}

/// Reads a secret from where the configuration says; by default from a file of the process's own,
/// which is made at the first start.
///
/// # Errors
/// [`SecretError`].
pub fn own_secret<E: From<SecretError>>(
    source: Option<&SecretSource>,
    default: &Path,
    make: impl FnOnce() -> Result<Secret<Vec<u8>>, E>,
) -> Result<Secret<Vec<u8>>, E> {
    if let Some(source) = source {
        return Ok(source.read(OWN_LIMIT)?);
    }
    if !default.exists() {
        let made = make()?;
        fsfile::write_atomic(default, made.expose(), 0o600).map_err(SecretError::from)?;
    }
    Ok(fsfile::read_secret(default, OWN_LIMIT).map_err(SecretError::from)?)
}

/// 32 octets as [`own_secret`]: random at the first start.
///
/// # Errors
/// [`SecretError`].
pub fn own_key(
    source: Option<&SecretSource>,
    default: &Path,
) -> Result<Secret<[u8; 32]>, SecretError> {
    let octets = own_secret(source, default, || {
        let key = random::secret::<32>().map_err(SecretError::Random)?;
        Ok::<_, SecretError>(Secret::new(key.expose().to_vec()))
    })?;
    let mut key = Secret::new([0; 32]);
    if octets.expose().len() != 32 {
        return Err(SecretError::Length);
    }
    key.expose_mut().copy_from_slice(octets.expose());
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Log, LogFormat};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        #[serde(default)]
        log: Log,
        key: Option<SecretSource>,
    }

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_refinement_replaces_keys_and_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.toml", "name = 'x'\n[log]\nfilter = 'warn'\nformat = 'json'\n");
        write(dir.path(), "a.d/1.toml", "[log]\nfilter = 'debug'\n[key]\npath = '/k'\n");
        write(dir.path(), "a.d/README", "not configuration");
        let sample: Sample = load(&dir.path().join("a.toml")).unwrap();
        assert_eq!(sample.name, "x");
        assert_eq!(sample.log, Log { format: LogFormat::Json, filter: "debug".to_owned() });
        assert_eq!(sample.key, Some(SecretSource::Path("/k".into())));
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.toml", "name = 'x'\n");
        write(dir.path(), "a.d/1.toml", "\n[log]\nfliter = 'debug'\n");
        let error = load::<Sample>(&dir.path().join("a.toml")).unwrap_err().to_string();
        assert!(error.contains("1.toml:3:") && error.contains("fliter"), "{error}");
    }

    #[test]
    fn malformed_text_and_missing_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.toml", "name = \n");
        let error = load::<Sample>(&dir.path().join("a.toml")).unwrap_err().to_string();
        assert!(error.contains("a.toml:1:"), "{error}");
        write(dir.path(), "a.toml", "[log]\n");
        let error = load::<Sample>(&dir.path().join("a.toml")).unwrap_err().to_string();
        assert!(error.contains("`name`"), "{error}");
    }
}
