//! A function as a value that can be sent to another process of the same program.
//!
//! ```text
//!   sender                                        receiver (same executable)
//!   f, a fn item  ->  Entry<S> in read-only data     Entry at anchor + offset
//!                       |                               ^   checked: inside the image, aligned,
//!                       +-- EntryRef {offset, hash} ----+   magic, type hash; only then called
//! ```
//!
//! `f` must be zero-sized: a fn item, or a closure that captures nothing. Then its *type* is all
//! there is to it, and a generic associated constant gives each such type one `Entry` in the
//! executable, made by the compiler, with no registration and no macro. Processes of one program
//! lay their image out alike, so the distance of an entry from an anchor is the same in all.
//!
//! Each piece of this crate that ships functions has its own signature (`S`), with its own magic
//! number, so that an entry of one kind is never called as another.
//!
//! To copy: function.rs, image.rs, panic.rs, codec.rs.

#![allow(unsafe_code)] // Reads an entry at a checked address; makes a value of a zero-sized type.

use crate::codec::{self, DecodeError, EncodeError};
use crate::image;
use crate::panic::{self, Panic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::any::TypeId;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;
use thiserror::Error;

/// A function of zero to eight arguments that can be sent: a fn item, or a closure that captures
/// nothing. `A` is the tuple of its arguments, as in Python's `target=f, args=(a, b)`.
///
/// Implemented for every such `Fn`; there is nothing to implement by hand. That it captures
/// nothing is checked when its call is compiled to code: `cargo build` refuses it, `cargo check`
/// (and so an editor) does not notice.
///
/// Arguments and results are made anew over there, so they own what they have: `String`, not
/// `&str`, nor a `&` of anything else. (The compiler's words for that are "implementation of
/// `Deserialize` is not general enough", or "`&T: DeserializeOwned` is not satisfied".)
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that can be sent with the arguments `{A}`",
    label = "not a function of these arguments that can be sent",
    note = "arguments are given as a tuple: `()`, `(a,)`, `(a, b)`, ...",
    note = "what can be sent is a `fn` item, or a closure that captures nothing, of at most eight \
            arguments"
)]
pub trait Function<A>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Calls it.
    fn call(self, args: A) -> Self::Output;
}

macro_rules! function_of {
    ($($A:ident)*) => {
        impl<F, R, $($A),*> Function<($($A,)*)> for F
        where
            F: Fn($($A),*) -> R + Copy + Send + Sync + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(self, ($($A,)*): ($($A,)*)) -> R {
                self($($A),*)
            }
        }
    };
}

function_of!();
function_of!(A);
function_of!(A B);
function_of!(A B C);
function_of!(A B C D);
function_of!(A B C D E);
function_of!(A B C D E G);
function_of!(A B C D E G H);
function_of!(A B C D E G H I);

/// Makes the one value of a function's type. The type stands for the function; see the module.
///
/// The caller must have been given a value of `F` by somebody at some time (in this process, or
/// in the one that sent the entry): then the type is inhabited, and it is `Copy`, so that one more
/// value of it is no surprise.
pub(crate) fn instance<F: Copy + 'static>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "this function cannot be sent to another process: it captures variables, or is a \
             function pointer. Pass a `fn` item or a closure that captures nothing, and hand it \
             what it needs as arguments (to run a closure with captures, use `fork`)"
        );
    }
    // SAFETY: `F` has no bytes (checked above), so any aligned non-null pointer may be read; the
    // type is inhabited because every `Entry` for it is made where a value of it was passed in.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// What an entry can be called as: a newtype around a function pointer, with a magic number that
/// no other signature has.
pub(crate) trait Signature: Copy + 'static {
    /// Told apart from every other signature's.
    const MAGIC: u64;
}

/// One shippable function in the executable's read-only data.
#[repr(C, align(8))]
pub(crate) struct Entry<S> {
    magic: [u64; 2],
    types: TypeId,
    run: S,
}

/// No text, instruction or table of a program contains this by chance.
const MAGIC: u64 = 0x9d5e_7c31_f00d_e47a;

impl<S: Signature> Entry<S> {
    /// An entry for `run`; `K` names everything that `run` was made from (the function's type and
    /// those of its arguments and result), so that a wrong offset is noticed.
    pub(crate) const fn new<K: 'static>(run: S) -> Self {
        Entry {
            magic: [MAGIC, S::MAGIC],
            types: TypeId::of::<K>(),
            run,
        }
    }
}

/// Where an entry is, in a form that means the same in every process of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct EntryRef {
    offset: i64,
    hash: u64,
}

/// A reference to a function that names none of this program's.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum BadEntry {
    /// The function is not in the main executable, so other processes cannot find it.
    #[error(
        "the function is not part of the main executable (a plugin, perhaps): only functions of \
         the program itself can be sent"
    )]
    Foreign,
    /// The bytes received name no function here: they were corrupted, or come from another build.
    #[error(
        "no function of this program is at {offset:+#x}: the message was corrupted, or comes from \
         another build"
    )]
    Unknown {
        /// Distance from the anchor, in bytes.
        offset: i64,
    },
}

impl EntryRef {
    /// Where `entry` is.
    ///
    /// # Errors
    ///
    /// [`BadEntry::Foreign`] if it is not in the main executable.
    pub(crate) fn of<S: Signature>(entry: &'static Entry<S>) -> Result<Self, BadEntry> {
        let address = std::ptr::from_ref(entry).addr();
        if !image().contains(&address) {
            return Err(BadEntry::Foreign);
        }
        Ok(EntryRef {
            offset: (address as i64).wrapping_sub(anchor() as i64),
            hash: type_hash(entry.types),
        })
    }

    #[cfg(test)]
    pub(crate) fn parts(self) -> (i64, u64) {
        (self.offset, self.hash)
    }

    #[cfg(test)]
    pub(crate) fn from_parts(offset: i64, hash: u64) -> Self {
        EntryRef { offset, hash }
    }

    /// The function there, after every check.
    ///
    /// # Errors
    ///
    /// [`BadEntry::Unknown`] unless an entry of exactly this signature and these types is there.
    pub(crate) fn resolve<S: Signature>(self) -> Result<S, BadEntry> {
        let unknown = BadEntry::Unknown {
            offset: self.offset,
        };
        let image = image();
        let address = (anchor() as i64).wrapping_add(self.offset) as usize;
        let fits = address >= image.start
            && address
                .checked_add(size_of::<Entry<S>>())
                .is_some_and(|end| end <= image.end);
        if !fits || !address.is_multiple_of(align_of::<Entry<S>>()) {
            return Err(unknown);
        }
        let entry = std::ptr::with_exposed_provenance::<Entry<S>>(address);
        // SAFETY: `image()` is a mapped, initialised part of the executable that nobody writes
        // to once the program runs, and the whole entry lies within it, aligned. Integers may be
        // read from any bytes.
        let magic = unsafe { (&raw const (*entry).magic).read() };
        if magic != [MAGIC, S::MAGIC] {
            return Err(unknown);
        }
        // SAFETY: as above; the magic numbers say that the compiler put an `Entry<S>` here.
        let entry = unsafe { &*entry };
        if type_hash(entry.types) != self.hash {
            return Err(unknown);
        }
        Ok(entry.run)
    }
}

/// The plainest signature: arguments in, result out, both as bytes. Processes and pools run it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Task(RunTask);

/// Without a place for the result the arguments are decoded and no more.
type RunTask = fn(&[u8], Option<&mut Vec<u8>>) -> Result<(), Failure>;

impl Signature for Task {
    const MAGIC: u64 = 1;
}

/// Why a function that arrived gave no result, other than by ending its process.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Failure {
    /// It panicked.
    #[error("the function {0}")]
    Panicked(Panic),
    /// Its arguments could not be decoded.
    #[error("the function was not run: its arguments were not understood: {0}")]
    Arguments(DecodeError),
    /// What it returned could not be encoded.
    #[error("the function ran, but its result cannot be sent back: {0}")]
    Result(EncodeError),
    /// There is no such function.
    #[error("the function was not run: {0}")]
    Entry(#[from] BadEntry),
}

impl Task {
    /// Where the entry is that runs `f`.
    ///
    /// # Errors
    ///
    /// As [`EntryRef::of`].
    pub(crate) fn entry<F, A>(_f: F) -> Result<EntryRef, BadEntry>
    where
        F: Function<A, Output: Serialize + 'static>,
        A: DeserializeOwned + 'static,
    {
        EntryRef::of(TaskOf::<F, A>::ENTRY)
    }

    /// Decodes the arguments, calls the function and appends its encoded result to `out`.
    ///
    /// # Errors
    ///
    /// [`Failure`]; then `out` is as it was.
    pub(crate) fn run(self, args: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        (self.0)(args, Some(out))
    }

    /// Decodes the arguments and drops them: handles among them are not on their way any more.
    pub(crate) fn refuse(self, args: &[u8]) {
        let _ = (self.0)(args, None);
    }
}

struct TaskOf<F, A>(PhantomData<(F, A)>);

impl<F, A> TaskOf<F, A>
where
    F: Function<A, Output: Serialize + 'static>,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<Task> = &Entry::new::<(F, A, F::Output)>(Task(|args, mut out| {
        let before = out.as_ref().map_or(0, |out| out.len());
        // Reading and writing values is the program's code too, and so is dropping them.
        panic::catch(|| {
            let args: A = codec::decode(args).map_err(Failure::Arguments)?;
            let Some(out) = &mut out else {
                return Ok(());
            };
            let result = instance::<F>().call(args);
            codec::encode_into(&result, out).map_err(Failure::Result)
        })
        .unwrap_or_else(|panic| {
            if let Some(out) = out {
                out.truncate(before);
            }
            Err(Failure::Panicked(panic))
        })
    }));
}

#[derive(Clone, Copy)]
struct Nothing(#[allow(dead_code)] fn());

impl Signature for Nothing {
    const MAGIC: u64 = 0;
}

/// An entry like all the others, so that the linker puts it among them.
static ANCHOR: Entry<Nothing> = Entry::new::<()>(Nothing(|| ()));

fn anchor() -> usize {
    (&raw const ANCHOR).expose_provenance()
}

/// Tells this copy of the library from another in the same program (another version, or the one
/// that its own tests are built into): where in the executable it is.
pub(crate) fn library_id() -> usize {
    anchor().wrapping_sub(image().start)
}

/// A `TypeId` hashes by writing a number that is a hash already; this keeps it.
fn type_hash(types: TypeId) -> u64 {
    struct Keep(u64);
    impl Hasher for Keep {
        fn write(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(byte);
            }
        }
        fn write_u64(&mut self, hash: u64) {
            self.0 ^= hash;
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut keep = Keep(0);
    types.hash(&mut keep);
    keep.finish()
}

/// The part of the main executable that holds the entries. They hold relocated pointers, so in a
/// position-independent executable that is the part made read-only after relocation. Empty if the
/// anchor is not in the main executable at all.
fn image() -> Range<usize> {
    static IMAGE: OnceLock<Range<usize>> = OnceLock::new();
    IMAGE.get_or_init(|| image::around(anchor())).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: u64) -> u64 {
        x * x
    }

    fn twice<T: Clone>(x: T) -> (T, T) {
        (x.clone(), x)
    }

    fn run<R: DeserializeOwned>(entry: EntryRef, args: &impl Serialize) -> Result<R, Failure> {
        let mut out = Vec::new();
        entry
            .resolve::<Task>()?
            .run(&codec::encode(args).unwrap(), &mut out)?;
        Ok(codec::decode(&out).unwrap())
    }

    #[test]
    fn a_function_is_found_again_and_called() {
        let entry = Task::entry(square).unwrap();
        assert_eq!(run::<u64>(entry, &(7u64,)).unwrap(), 49);
        let closure = Task::entry(|a: u8, b: String| format!("{a}{b}")).unwrap();
        assert_eq!(run::<String>(closure, &(1u8, "x")).unwrap(), "1x");
        let generic = Task::entry(twice::<char>).unwrap();
        assert_eq!(run::<(char, char)>(generic, &('z',)).unwrap(), ('z', 'z'));
    }

    #[test]
    fn a_wrong_offset_or_hash_is_refused() {
        let entry = Task::entry(square).unwrap();
        let offsets = [i64::MIN, -1, 1, 8, 1 << 20, 1 << 40, i64::MAX];
        for offset in offsets.map(|o| entry.offset.wrapping_add(o)) {
            let wrong = EntryRef { offset, ..entry };
            assert!(wrong.resolve::<Task>().is_err(), "{offset}");
        }
        let hash = entry.hash ^ 1;
        assert!(EntryRef { hash, ..entry }.resolve::<Task>().is_err());
    }

    #[test]
    fn an_entry_of_another_signature_is_refused() {
        let entry = EntryRef::of(&ANCHOR).unwrap();
        assert!(entry.resolve::<Nothing>().is_ok());
        assert!(entry.resolve::<Task>().is_err());
    }

    #[test]
    fn every_offset_around_the_anchor_is_safe_to_try() {
        let hash = Task::entry(square).unwrap().hash;
        for offset in -200_000..200_000 {
            let _ = EntryRef { offset, hash }.resolve::<Task>();
        }
    }

    #[test]
    fn a_panic_comes_back_as_a_value() {
        let entry = Task::entry(|| -> () { panic!("boom") }).unwrap();
        match run::<()>(entry, &()) {
            Err(Failure::Panicked(panic)) => assert_eq!(panic.message, "boom"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_arguments_come_back_as_a_value() {
        let entry = Task::entry(square).unwrap();
        let failure = run::<u64>(entry, &(1u8,)).unwrap_err();
        assert!(matches!(failure, Failure::Arguments(_)), "{failure}");
    }

    #[test]
    fn a_panic_of_what_reads_writes_or_drops_a_value_comes_back_as_a_value() {
        #[derive(PartialEq)]
        enum When {
            Written,
            Dropped,
        }
        struct Panics(When);
        impl Serialize for Panics {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                assert!(self.0 != When::Written, "while written");
                s.serialize_u8(1)
            }
        }
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("while read")
            }
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                assert!(self.0 != When::Dropped, "while dropped");
            }
        }
        let told = |entry: EntryRef, args: &[u8]| {
            let mut out = vec![7];
            let failure = entry.resolve::<Task>().unwrap().run(args, &mut out);
            assert_eq!(out, [7]);
            failure.unwrap_err().to_string()
        };
        let reads = told(Task::entry(|_: Panics| ()).unwrap(), &[1]);
        assert!(reads.contains("while read"), "{reads}");
        let writes = told(Task::entry(|| Panics(When::Written)).unwrap(), &[]);
        assert!(writes.contains("while written"), "{writes}");
        let drops = told(Task::entry(|| Panics(When::Dropped)).unwrap(), &[]);
        assert!(drops.contains("while dropped"), "{drops}");
    }
}
