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
//! The bytes do not describe themselves, so serde's attributes `untagged`, `tag` and `flatten` and
//! types like `serde_json::Value` are errors, and `skip_serializing_if` makes bytes that cannot be
//! read.
//!
//! To copy: codec.rs.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::enc::write::Writer;
use serde::de::{DeserializeOwned, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use thiserror::Error;

/// A value could not be turned into bytes.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("a value of type `{type_name}` cannot be serialised: {reason}")]
pub struct EncodeError {
    /// The Rust name of the value's type.
    pub type_name: String,
    /// What serde or the codec said.
    pub reason: String,
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes could not be turned into a value.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{length} bytes are not a value of type `{type_name}`: {reason}")]
pub struct DecodeError {
    /// The Rust name of the type that was asked for.
    pub type_name: String,
    /// How many bytes there were.
    pub length: usize,
    /// What serde or the codec said.
    pub reason: String,
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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
            reason: encoding_reason(error),
        }
    })
}

/// Turns bytes back into a value. Every byte must be used.
///
/// # Errors
///
/// [`DecodeError`] where the bytes are truncated, too long or not of this type. A length that
/// claims more than the message could hold is refused before memory is allocated for it, where it
/// is over the next of 64 KiB, 16 MiB, 1 GiB and 64 GiB that the message is under. Of elements
/// that take no bytes, those of a `Vec<()>`, any number fits: there the length is believed.
///
/// ```
/// let bytes = common::codec::encode("hello")?;
/// assert_eq!(common::codec::decode::<String>(&bytes)?, "hello");
/// assert!(common::codec::decode::<String>(&bytes[..3]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_seed(bytes, PhantomData::<T>, std::any::type_name::<T>)
}

/// As [`decode`] for a sequence. A length that only elements without bytes could have, and that is
/// no sensible number of those either, is refused.
pub(crate) fn decode_vec<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    let mut values = Vec::new();
    decode_onto(bytes, &mut values)?;
    Ok(values)
}

/// As [`decode_vec`], but appends the values to `out`. On an error some may have been appended.
pub(crate) fn decode_onto<T: DeserializeOwned>(
    bytes: &[u8],
    out: &mut Vec<T>,
) -> Result<(), DecodeError> {
    let most = bytes.len().max(MOST_EMPTY);
    decode_seed(bytes, Onto { out, most }, std::any::type_name::<Vec<T>>)
}

fn decode_seed<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
    type_name: fn() -> &'static str,
) -> Result<S::Value, DecodeError> {
    let refuse = |reason| refuse(bytes, type_name(), reason);
    // The limit is a const of the codec's type, so it comes in steps; it stands between a
    // corrupted length and the allocator.
    let (value, used) = match bytes.len() {
        0..0x1_0000 => decode_within::<S, 0x1_0000>(bytes, seed),
        0x1_0000..0x100_0000 => decode_within::<S, 0x100_0000>(bytes, seed),
        0x100_0000..0x4000_0000 => decode_within::<S, 0x4000_0000>(bytes, seed),
        _ => decode_within::<S, { 1 << 36 }>(bytes, seed),
    }
    .map_err(|error| refuse(decoding_reason(error)))?;
    if used < bytes.len() {
        return Err(refuse(format!(
            "{} bytes are left over",
            bytes.len() - used
        )));
    }
    Ok(value)
}

const FORMAT: Configuration<LittleEndian, Fixint> = config::standard().with_fixed_int_encoding();

fn decode_within<'de, S: DeserializeSeed<'de>, const BYTES: usize>(
    bytes: &'de [u8],
    seed: S,
) -> Result<(S::Value, usize), bincode::error::DecodeError> {
    let format: Configuration<LittleEndian, Fixint, Limit<BYTES>> = FORMAT.with_limit::<BYTES>();
    bincode::serde::seed_decode_from_slice(seed, bytes, format)
}

/// More values that take no bytes than this are a corrupted length.
const MOST_EMPTY: usize = u32::MAX as usize;
/// Memory for no more than so many bytes of values is reserved on the word of a length.
const CAUTION: usize = 1 << 20;

/// Takes a sequence of at most so many by appending it.
struct Onto<'a, T> {
    out: &'a mut Vec<T>,
    most: usize,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Onto<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Onto<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        // The format tells it, so it need not be counted.
        let length = sequence.size_hint().unwrap_or(0);
        if length > self.most {
            return Err(serde::de::Error::custom(format_args!(
                "{length} values cannot be in it"
            )));
        }
        self.out
            .reserve(length.min(CAUTION / size_of::<T>().max(1)));
        while let Some(value) = sequence.next_element()? {
            self.out.push(value);
        }
        Ok(())
    }
}

/// The bytes are values one after another and nothing about them.
const NOT_SELF_DESCRIBING: &str = "it needs a format that describes itself, as JSON does: \
     `serde_json::Value` and serde's attributes `untagged`, `tag` and `flatten` cannot be sent";

#[cold]
fn encoding_reason(error: bincode::error::EncodeError) -> String {
    use bincode::{error::EncodeError, serde::EncodeError::SequenceMustHaveLength};
    match error {
        EncodeError::OtherString(reason) => reason,
        EncodeError::Serde(SequenceMustHaveLength) => {
            format!("it has a sequence or map of unknown length; or {NOT_SELF_DESCRIBING}")
        }
        other => other.to_string(),
    }
}

#[cold]
fn decoding_reason(error: bincode::error::DecodeError) -> String {
    use bincode::{error::DecodeError, serde::DecodeError as Asked};
    match error {
        DecodeError::OtherString(reason) => reason,
        DecodeError::Serde(
            Asked::AnyNotSupported | Asked::IgnoredAnyNotSupported | Asked::IdentifierNotSupported,
        ) => NOT_SELF_DESCRIBING.to_owned(),
        other => other.to_string(),
    }
}

#[cold]
fn refuse(bytes: &[u8], type_name: &str, reason: String) -> DecodeError {
    DecodeError {
        type_name: type_name.into(),
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
        // It is what `main` and `unwrap` print.
        assert_eq!(format!("{error:?}"), error.to_string());
        let error = decode::<u32>(&[]).unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
    }

    #[test]
    fn what_needs_another_format_is_told_so() {
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Number(u64),
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Flattened {
            #[serde(flatten)]
            rest: std::collections::HashMap<String, u64>,
        }
        let bytes = encode(&Untagged::Number(1)).unwrap();
        let read = decode::<Untagged>(&bytes).unwrap_err().to_string();
        assert!(read.contains("`untagged`"), "{read}");
        let rest = Default::default();
        let written = encode(&Flattened { rest }).unwrap_err().to_string();
        assert!(written.contains("`flatten`"), "{written}");
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
    fn a_huge_number_of_values_without_bytes_is_refused() {
        let three = encode(&vec![(); 3]).unwrap();
        assert_eq!(decode_vec::<()>(&three), Ok(vec![(); 3]));
        let error = decode_vec::<()>(&encode(&(u64::MAX / 2)).unwrap()).unwrap_err();
        assert!(error.to_string().contains("cannot be in it"), "{error}");
    }

    #[test]
    fn a_sequence_is_appended_to_what_is_there() {
        let mut out = vec![1u16];
        decode_onto(&encode(&vec![2u16, 3]).unwrap(), &mut out).unwrap();
        assert_eq!(out, [1, 2, 3]);
        let error = decode_onto(&[1, 0, 0], &mut out).unwrap_err();
        assert_eq!(error.type_name, "alloc::vec::Vec<u16>");
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
