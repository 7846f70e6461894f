//! How a value becomes bytes and bytes become a value again.
//!
//! The only file that names `bincode`: that crate is unmaintained (RUSTSEC-2025-0141) and must be
//! replaceable by editing this file alone. The bytes are an internal format of one build of one
//! program: both sides are always the same executable.
//!
//! Integers have a fixed width: two `u64` are sixteen bytes and two stores, and no length can
//! claim more than the message holds. Send large byte strings as `serde_bytes::ByteBuf` or
//! `bytes::Bytes`: serde takes a plain `Vec<u8>` apart element by element, fifteen times slower.
//!
//! To copy: codec.rs.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::enc::write::Writer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A value could not be turned into bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("a value of type `{type_name}` cannot be serialised: {reason}")]
pub struct EncodeError {
    /// The Rust name of the value's type.
    pub type_name: String,
    /// What serde or the codec said.
    pub reason: String,
}

/// Bytes could not be turned into a value.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{length} bytes are not a value of type `{type_name}`: {reason}")]
pub struct DecodeError {
    /// The Rust name of the type that was asked for.
    pub type_name: String,
    /// How many bytes there were.
    pub length: usize,
    /// What serde or the codec said.
    pub reason: String,
}

/// Turns a value into bytes.
///
/// # Errors
///
/// [`EncodeError`] where the value's own `Serialize` refuses, or where it is of a kind the format
/// has no form for (a sequence of unknown length, say).
///
/// ```
/// let bytes = common::codec::encode(&(7u64, 8u64))?;
/// assert_eq!(bytes.len(), 16);
/// # Ok::<(), common::codec::EncodeError>(())
/// ```
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes)
}

/// Appends a value's bytes to `out`, so that one buffer serves many messages. On an error `out`
/// is as it was before.
///
/// # Errors
///
/// As [`encode`].
///
/// ```
/// let mut buffer = b"header".to_vec();
/// common::codec::encode_into(&1u8, &mut buffer)?;
/// assert_eq!(buffer, b"header\x01");
/// # Ok::<(), common::codec::EncodeError>(())
/// ```
#[inline]
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    bincode::serde::encode_into_writer(value, Append(out), FORMAT).map_err(|error| {
        out.truncate(start);
        EncodeError {
            type_name: std::any::type_name::<T>().into(),
            reason: error.to_string(),
        }
    })
}

/// Turns bytes back into a value. Every byte must be used.
///
/// # Errors
///
/// [`DecodeError`] where the bytes are truncated, too long or not of this type. A length that
/// claims more than the message could hold is refused before memory is allocated for it.
///
/// ```
/// let bytes = common::codec::encode("hello")?;
/// assert_eq!(common::codec::decode::<String>(&bytes)?, "hello");
/// assert!(common::codec::decode::<String>(&bytes[..3]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    // The limit is a const of the codec's type, so it comes in steps; it stands between a
    // corrupted length and the allocator.
    let (value, used) = match bytes.len() {
        0..0x1_0000 => decode_within::<T, 0x1_0000>(bytes),
        0x1_0000..0x100_0000 => decode_within::<T, 0x100_0000>(bytes),
        0x100_0000..0x4000_0000 => decode_within::<T, 0x4000_0000>(bytes),
        _ => decode_within::<T, { 1 << 36 }>(bytes),
    }
    .map_err(|error| refuse::<T>(bytes, error.to_string()))?;
    if used < bytes.len() {
        return Err(refuse::<T>(
            bytes,
            format!("{} bytes are left over", bytes.len() - used),
        ));
    }
    Ok(value)
}

const FORMAT: Configuration<LittleEndian, Fixint> = config::standard().with_fixed_int_encoding();

fn decode_within<T: DeserializeOwned, const BYTES: usize>(
    bytes: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    let format: Configuration<LittleEndian, Fixint, Limit<BYTES>> = FORMAT.with_limit::<BYTES>();
    bincode::serde::decode_from_slice(bytes, format)
}

#[cold]
fn refuse<T>(bytes: &[u8], reason: String) -> DecodeError {
    DecodeError {
        type_name: std::any::type_name::<T>().into(),
        length: bytes.len(),
        reason,
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_encode_leaves_the_buffer_alone() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not today"))
            }
        }
        let mut out = vec![1, 2];
        let error = encode_into(&(5u32, Refuses), &mut out).unwrap_err();
        assert_eq!(out, [1, 2]);
        assert!(error.to_string().contains("not today"), "{error}");
        assert!(error.to_string().contains("Refuses"), "{error}");
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_allocated() {
        let mut bytes = encode("hello").unwrap();
        bytes[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode::<Vec<u32>>(&bytes).is_err());
        assert!(decode::<std::collections::HashMap<u32, u32>>(&bytes).is_err());
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = decode::<u32>(&encode(&7u64).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("4 bytes are left over"),
            "{error}"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "twenty million bytes take too long")]
    fn a_large_message_round_trips() {
        let text = "x".repeat(20 << 20);
        assert_eq!(decode::<String>(&encode(&text).unwrap()).unwrap(), text);
    }
}
