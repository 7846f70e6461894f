//! How a client and the server learn to trust each other.
//!
//! ```text
//!   client                                   server
//!   connects                                 looks at the client's uid
//!            <-- Challenge {random bytes} --
//!            --- Answer {build, proof} ---->  same key? same executable?
//!            <-- Digest, if in doubt -------
//!            --- its file's SHA-256 ------->
//!            <-- Welcome {proof} + memory --  the client checks the proof in turn
//! ```
//!
//! The key itself is never sent. Nothing is read beyond one packet at a time, and who says
//! nothing is sent away after a while.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::address::Key;
use super::error::Refusal;
use crate::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// In front of every packet; the digit counts the forms these have had.
const MAGIC: &[u8; 16] = b"common manager 1";

/// The server's first word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) server: [u8; 16],
    pub(super) name: String,
    pub(super) nonce: [u8; 32],
}

/// What a client says to that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) nonce: [u8; 32],
    pub(super) build: Build,
    pub(super) proof: [u8; 32],
}

/// What the server says to that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Verdict {
    Refused(Refusal),
    /// Your executable is another file than mine: say what is in it.
    Digest,
    /// Come in; the memory file comes with this.
    Welcome {
        proof: [u8; 32],
        number: u32,
    },
}

/// The client's answer to `Verdict::Digest`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileDigest(pub(super) [u8; 32]);

pub(super) fn pack<T: Serialize>(packet: &T) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    // These types are made of numbers and short strings, which can always be encoded; if not, the
    // other side sees a packet without a body and says so.
    let _ = codec::encode_into(packet, &mut bytes);
    bytes
}

pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    codec::decode(bytes.strip_prefix(MAGIC)?).ok()
}

/// What a client proves with; the other end's bytes make it fresh.
pub(super) fn clients_proof(key: &Key, challenge: &[u8; 32], answer: &Answer) -> [u8; 32] {
    key.prove(&clients_words(challenge, answer))
}

pub(super) fn check_client(key: &Key, challenge: &[u8; 32], answer: &Answer) -> bool {
    key.verify(&clients_words(challenge, answer), &answer.proof)
}

fn clients_words<'a>(challenge: &'a [u8; 32], answer: &'a Answer) -> [&'a [u8]; 3] {
    [b"client", challenge, &answer.nonce]
}

pub(super) fn servers_proof(key: &Key, challenge: &[u8; 32], answer: &[u8; 32]) -> [u8; 32] {
    key.prove(&[b"server", challenge, answer])
}

pub(super) fn check_server(
    key: &Key,
    challenge: &[u8; 32],
    answer: &[u8; 32],
    proof: &[u8; 32],
) -> bool {
    key.verify(&[b"server", challenge, answer], proof)
}

/// Which file a process runs: its place on the disk and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Build {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The running executable, also after it was replaced on disk.
const EXECUTABLE: &str = "/proc/self/exe";

impl Build {
    /// This process's.
    pub(super) fn current() -> Build {
        static BUILD: OnceLock<Build> = OnceLock::new();
        *BUILD.get_or_init(|| {
            let about = std::fs::metadata(EXECUTABLE);
            about.map_or(
                // Without /proc nothing is equal to it, and contents decide; without those, nobody
                // gets in.
                Build {
                    device: 0,
                    inode: 0,
                    size: 0,
                    modified: (0, std::process::id().into()),
                },
                |about| Build {
                    device: about.dev(),
                    inode: about.ino(),
                    size: about.size(),
                    modified: (about.mtime(), about.mtime_nsec()),
                },
            )
        })
    }
}

/// The SHA-256 of this process's executable; read once, when there is doubt.
pub(super) fn digest() -> io::Result<[u8; 32]> {
    static DIGEST: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(digest) = DIGEST.get() {
        return Ok(*digest);
    }
    let mut file = File::open(EXECUTABLE)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(*DIGEST.get_or_init(|| hasher.finalize().into()))
}
