//! Where a manager listens, and the key to it.

use hmac::{Hmac, KeyInit, Mac};
use nix::errno::Errno;
use nix::sys::socket::UnixAddr;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;

/// Where a manager listens: a path in the file system, or a name in Linux's abstract namespace,
/// written with an `@` in front (unix(7)).
///
/// ```
/// use common::manager::Address;
/// assert_eq!(Address::from("@my-cache").to_string(), "@my-cache");
/// assert_eq!(Address::from("/run/my-cache.sock").to_string(), "/run/my-cache.sock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// A socket file. Removed when the manager is shut down, also if it has to be killed for that;
    /// one that is left where the process that started it was killed is replaced by the next. A
    /// relative path is that of the process that starts a manager there, or connects to it; it
    /// travels as an absolute one.
    Path(PathBuf),
    /// A name that leaves nothing behind, seen in the same network namespace only.
    Abstract(String),
}

impl Address {
    /// A name nobody else has.
    pub(super) fn unique() -> Address {
        Address::Abstract(format!("common-manager-{}", hex(&random::<16>())))
    }

    /// The same for processes in other folders.
    pub(super) fn absolute(self) -> Address {
        match self {
            Address::Path(path) => Address::Path(std::path::absolute(&path).unwrap_or(path)),
            name @ Address::Abstract(_) => name,
        }
    }

    pub(super) fn socket_address(&self) -> Result<UnixAddr, Errno> {
        match self {
            Address::Path(path) => UnixAddr::new(path),
            Address::Abstract(name) => UnixAddr::new_abstract(name.as_bytes()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => path.display().fmt(f),
            Address::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(name) => Address::Abstract(name.to_owned()),
            None => Address::Path(text.into()),
        }
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Address::Path(path.into())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Address::Path(path)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

/// What a process must know to use a manager. Neither side sends it: each proves to the other
/// that it knows it (HMAC-SHA256 over the other's random bytes).
///
/// `Debug` does not show it; [`Key::to_hex`] does, for handing it on by hand.
///
/// ```
/// use common::manager::Key;
/// let key = Key::random();
/// assert_eq!(Key::from_hex(&key.to_hex())?, key);
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// # Ok::<(), common::manager::BadKey>(())
/// ```
#[doc(alias = "authkey")]
#[derive(Clone, Serialize, Deserialize)]
pub struct Key([u8; 32]);

/// Text that is no key.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("a key is written as 64 hexadecimal digits, not as {length} characters like these")]
pub struct BadKey {
    /// How long the text is, in bytes.
    pub length: usize,
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Key {
    /// A new key, from the kernel's random numbers.
    #[must_use]
    pub fn random() -> Key {
        Key(random())
    }

    /// A key made from a secret of any length. A short or guessable secret makes a weak key.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Key {
        Key(Key([0; 32]).prove(&[b"common manager key", secret]))
    }

    /// The 64 hexadecimal digits that [`from_hex`](Key::from_hex) reads.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads what [`to_hex`](Key::to_hex) wrote.
    ///
    /// # Errors
    ///
    /// [`BadKey`] if it is anything else.
    pub fn from_hex(text: &str) -> Result<Key, BadKey> {
        let bad = || BadKey { length: text.len() };
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Key(bytes))
    }

    /// The key inside this manager's proxies: who has one can use the manager, and cannot tell
    /// the key it was made from.
    pub(super) fn for_proxies(&self, server: &[u8; 16]) -> Key {
        Key(self.prove(&[b"proxies", server]))
    }

    /// Something only who knows the key can say about these bytes.
    pub(super) fn prove(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is that, compared in a time that does not depend on where it differs.
    pub(super) fn verify(&self, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.block());
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    /// HMAC pads a key with zeros to the hash's block.
    fn block(&self) -> hmac::digest::Key<Hmac<Sha256>> {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&self.0);
        block
    }
}

/// In constant time.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.verify(&[], &other.prove(&[]))
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        Key::from_hex(text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel's generator fails before Linux 3.17 only. Guessable keys would be worse than none.
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("no random numbers: {error}"));
    bytes
}
