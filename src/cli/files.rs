//! Files of the command line: secrets are 0600 from their first byte, and a file is replaced whole or not at all.

use super::failure::Failure;
use crate::ca::certificates_from_pem;
use der::pem::PemLabel;
use rustix::fs::Access;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Larger files are none of ours.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The owner only: 0600.
    Owner,
    /// Everyone: 0644.
    Everyone,
}

/// Replaces `path` by `content`: written beside it, synced, renamed, and the directory synced, so that after a crash
/// there is the old file or the new one.
///
/// # Errors
/// [`Failure`] with the path.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        // A secret has one place only: what a crash leaves of it there is gone with the next one. What is public may be written
        // by several brokers at once.
        let suffix = match readers {
            Readers::Owner => "new".to_owned(),
            Readers::Everyone => format!("{}.new", Uuid::now_v7()),
        };
        std::fs::rename(write_beside(path, &suffix, content, readers)?, path)?;
        File::open(directory_of(path))?.sync_all()
    };
    write().map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

/// Writes a new file, whole or not at all; one that exists is left as it is.
///
/// # Errors
/// [`Failure`] with the path, also if it exists.
pub fn create_new(path: &Path, content: &[u8], readers: Readers) -> Result<(), Failure> {
    match create_if_none(path, content, readers)? {
        true => Ok(()),
        false => Err(Failure::failed(format!("{} cannot be written: it exists", path.display()))),
    }
}

/// As [`create_new`]; false if it exists, perhaps because another process was first.
///
/// # Errors
/// [`Failure`] with the path.
pub(super) fn create_if_none(path: &Path, content: &[u8], readers: Readers) -> Result<bool, Failure> {
    let write = || -> io::Result<bool> {
        let temporary = write_beside(path, &format!("{}.new", Uuid::now_v7()), content, readers)?;
        let linked = std::fs::hard_link(&temporary, path);
        std::fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => {
                linked?;
                File::open(directory_of(path))?.sync_all().map(|()| true)
            }
        }
    };
    write().map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

/// Writes and syncs a file beside its place, `NAME.SUFFIX`.
fn write_beside(path: &Path, suffix: &str, content: &[u8], readers: Readers) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    let temporary = directory_of(path).join(name);
    // One that a crash left behind may have other rights.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode(readers)).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map(|()| temporary)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a new file will be, whatever way its directory is named.
///
/// # Errors
/// [`Failure`] with the path: it exists (wrong usage), or its directory does not or may not be written to.
pub(super) fn new_place(path: &Path) -> Result<PathBuf, Failure> {
    // A link that leads nowhere is there, too.
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists: name another file", path.display())));
    }
    let place = || -> io::Result<PathBuf> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let directory = directory_of(path).canonicalize()?;
        rustix::fs::access(&directory, Access::WRITE_OK | Access::EXEC_OK)?;
        Ok(directory.join(name))
    };
    place().map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

/// Makes a directory for the owner only (0700) with all above it; one that exists is left as it is.
///
/// # Errors
/// [`Failure`] with the path.
pub fn private_directory(path: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", path.display())))
}

/// Deletes a file and syncs its directory; none is fine.
///
/// # Errors
/// [`Failure`] with the path.
pub(super) fn delete(path: &Path) -> Result<(), Failure> {
    let remove = || -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        File::open(directory_of(path))?.sync_all()
    };
    remove().map_err(|error| Failure::failed(format!("{} cannot be deleted: {error}", path.display())))
}

/// The content of a public file.
///
/// # Errors
/// [`Failure`] (wrong usage) with the path.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}

/// The content of a file with a secret. It must not be readable by others: such a key or token may be known already.
///
/// # Errors
/// [`Failure`] (wrong usage) with the path and what to do.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let unreadable = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::usage(format!(
            "{0} holds a secret and has mode {mode:04o}: others may read it.\n  \
             Use a new one if they could have; else: chmod 600 {0}",
            path.display()
        )));
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

/// The certificates of a PEM file, DER, in the file's order; at least one.
///
/// # Errors
/// [`Failure`] (wrong usage) with the path.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    certificates_from_pem(&read(path)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// The certification request in a file's text (PEM), DER.
///
/// # Errors
/// [`Failure`] (wrong usage) with the path.
pub(super) fn certificate_request(path: &Path, text: &[u8]) -> Result<Vec<u8>, Failure> {
    let wrong = |problem: String| Failure::usage(format!("{}: {problem}", path.display()));
    let (label, der) = der::pem::decode_vec(text).map_err(|error| wrong(format!("no PEM: {error}")))?;
    if !matches!(label, x509_cert::request::CertReq::PEM_LABEL | "NEW CERTIFICATE REQUEST") {
        return Err(wrong(format!("has a {label}, not a CERTIFICATE REQUEST")));
    }
    Ok(der)
}

/// A private key of a PEM file that only its owner may read, DER.
///
/// # Errors
/// [`Failure`] (wrong usage) with the path.
pub(super) fn read_private_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let pem = read_secret(path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| Failure::usage(format!("{} has no private key in PEM", path.display())))?;
    Ok(Zeroizing::new(key.secret_der().to_vec()))
}

fn mode(readers: Readers) -> u32 {
    match readers {
        Readers::Owner => 0o600,
        Readers::Everyone => 0o644,
    }
}

/// A file's text.
///
/// # Errors
/// [`Failure`] with the path, also if it is not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::usage(format!("{} is not UTF-8", path.display())))
}

/// The items of a JSON array, or of one object after the other; at least one.
///
/// # Errors
/// [`Failure`] with the path and, for an item that does not fit, its line.
pub(super) fn read_json_items<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let text = read_text(path)?;
    let items: serde_json::Result<Vec<T>> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text)
    } else {
        serde_json::Deserializer::from_str(&text).into_iter().collect()
    };
    match items {
        Ok(items) if items.is_empty() => Err(Failure::usage(format!("{} names nothing", path.display()))),
        Ok(items) => Ok(items),
        Err(problem) => Err(Failure::usage(format!("{}: {problem}", path.display()))),
    }
}
