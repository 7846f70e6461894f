//! What the pool and a worker say to each other over their socket.
//!
//! ```text
//!   frame = head length (u32) | body length (u64) | head | body
//! ```
//!
//! The head is a [`ToWorker`] or [`FromWorker`], the body the bytes of arguments or results as they
//! are, not copied through serde.
//!
//! To copy: aio/pool/wire.rs, function.rs, image.rs, panic.rs, codec.rs.

use crate::codec::{self, EncodeError};
use crate::function::{EntryRef, Failure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// From the pool; the body of `Run` is the arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    Run {
        id: u64,
        entry: EntryRef,
        timeout: Option<Duration>,
    },
    Cancel {
        id: u64,
    },
}

/// From a worker; the body of `Done` is the ends of the calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// The first thing it says: who it is, and that the pool sent it.
    Hello {
        key: u128,
        slot: u64,
        generation: u64,
    },
    /// How many `Run`s it has taken in its life. Said before any of them is started, so that
    /// what a dead worker has not taken is known never to have run.
    Taken { count: u64 },
    /// A chunk has ended.
    Done { id: u64, end: Result<(), Failure> },
}

/// No head is longer: the longest holds a panic's message.
const LONGEST_HEAD: u32 = 1 << 24;

/// Appends a frame to `out`.
pub(super) fn put<H: Serialize>(
    head: &H,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; 12]);
    codec::encode_into(head, out).inspect_err(|_| out.truncate(start))?;
    let head_length = (out.len() - start - 12) as u32;
    out[start..start + 4].copy_from_slice(&head_length.to_le_bytes());
    out[start + 4..start + 12].copy_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// Reads a frame; `None` where the stream ends between two.
///
/// # Errors
///
/// If the stream fails or ends within a frame, or holds something else than frames. A length
/// that lies is noticed before memory is allocated for it.
pub(super) async fn get<H: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(H, Vec<u8>)>> {
    let Some(head_length) = first_word(stream).await? else {
        return Ok(None);
    };
    let body_length = stream.read_u64_le().await?;
    if head_length > LONGEST_HEAD {
        return Err(io::Error::other("a frame whose head is too long"));
    }
    let head = read_exactly(stream, u64::from(head_length)).await?;
    let head = codec::decode(&head).map_err(io::Error::other)?;
    let body = read_exactly(stream, body_length).await?;
    Ok(Some((head, body)))
}

async fn first_word(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u32>> {
    let mut word = [0; 4];
    if stream.read(&mut word[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut word[1..]).await?;
    Ok(Some(u32::from_le_bytes(word)))
}

/// The buffer grows with what arrives, not with what the length promises.
async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), length: u64) -> io::Result<Vec<u8>> {
    const AT_ONCE: u64 = 1 << 20;
    let mut bytes = Vec::with_capacity(length.min(AT_ONCE) as usize);
    stream.take(length).read_to_end(&mut bytes).await?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<(FromWorker, Vec<u8>)>> {
        futures::executor::block_on(get(&mut &*bytes))
    }

    #[test]
    fn frames_round_trip_and_garbage_is_an_error() {
        let mut bytes = Vec::new();
        put(&FromWorker::Taken { count: 7 }, b"body", &mut bytes).unwrap();
        let (head, body) = read(&bytes).unwrap().unwrap();
        assert!(matches!(head, FromWorker::Taken { count: 7 }));
        assert_eq!(body, b"body");

        assert!(read(&[]).unwrap().is_none());
        for end in 1..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            let _ = read(&wrong);
        }
    }
}
