//! Where in memory a part of this program's executable is, as its program headers say, and what
//! the loader calls before `main`.
//!
//! To copy: image.rs.

#![allow(unsafe_code)] // Reads the program headers, where the kernel says they are.

use std::ffi::{c_char, c_int};
use std::ops::Range;

/// A function that the loader calls before `main`, with what that gets: how many arguments there
/// are, the arguments, and the environment.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The constructors of the executable that come after this one, in their order. None if it has no
/// dynamic section to name them, as one has that is static and not position-independent.
pub(crate) fn constructors_after(this: &'static Constructor) -> &'static [Option<Constructor>] {
    let all = constructors();
    let next = std::ptr::from_ref(this).addr() + size_of::<Constructor>();
    if next <= all.start || next >= all.end {
        return &[];
    }
    let first = std::ptr::with_exposed_provenance::<Option<Constructor>>(next);
    // SAFETY: an array of pointers to functions, mapped and relocated before the first of them was
    // called; nobody changes it.
    unsafe { std::slice::from_raw_parts(first, (all.end - next) / size_of::<Constructor>()) }
}

/// Where the array of the constructors is (`DT_INIT_ARRAY` in elf(5)).
fn constructors() -> Range<usize> {
    const INIT_ARRAY: u64 = 25;
    const INIT_ARRAY_SIZE: u64 = 27;
    let (base, headers) = headers();
    let dynamic = headers.iter().find(|it| it.p_type == libc::PT_DYNAMIC);
    let table: &[[u64; 2]] = dynamic.map_or(&[][..], |header| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        let count = header.p_memsz as usize / size_of::<[u64; 2]>();
        // SAFETY: the executable's header says that so many pairs of a tag and a value are there.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), count) }
    });
    let value = |tag| {
        table
            .iter()
            .find(|[is, _]| *is == tag)
            .map(|it| it[1] as usize)
    };
    match (value(INIT_ARRAY), value(INIT_ARRAY_SIZE)) {
        (Some(at), Some(bytes)) => base.wrapping_add(at)..base.wrapping_add(at) + bytes,
        _ => 0..0,
    }
}

/// The part of the executable that `address` is in: the one that is made read-only after relocation
/// (`PT_GNU_RELRO` in elf(5)), else one that is loaded as it is (`PT_LOAD`). Empty if there is none,
/// as for what is in a shared library.
pub(crate) fn around(address: usize) -> Range<usize> {
    let (base, headers) = headers();
    let of_kind = |kind: u32| {
        headers
            .iter()
            .filter(|header| header.p_type == kind)
            .map(|header| {
                let start = base.wrapping_add(header.p_vaddr as usize);
                start..start + header.p_memsz as usize
            })
            .find(|range| range.contains(&address))
    };
    of_kind(libc::PT_GNU_RELRO)
        .or_else(|| of_kind(libc::PT_LOAD))
        .unwrap_or(0..0)
}

/// The executable's program headers, and how far above the addresses in them it is loaded.
fn headers() -> (usize, &'static [libc::Elf64_Phdr]) {
    // SAFETY: getauxval has no preconditions.
    let (table, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as usize,
            libc::getauxval(libc::AT_PHNUM) as usize,
        )
    };
    if table == 0 {
        return (0, &[]);
    }
    // SAFETY: the kernel says that its own `count` program headers of the executable are at
    // `table`; they stay mapped, unchanged, as long as the process lives.
    let headers = unsafe {
        std::slice::from_raw_parts(
            std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(table),
            count,
        )
    };
    // A position-independent executable is loaded `base` above the addresses in its headers, and
    // says so with the header that describes the table itself.
    let base = headers
        .iter()
        .find(|header| header.p_type == libc::PT_PHDR)
        .map_or(0, |header| table.wrapping_sub(header.p_vaddr as usize));
    (base, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_executable_is_found_and_nothing_else() {
        static HERE: u8 = 1;
        let here = (&raw const HERE).addr();
        assert!(around(here).contains(&here));
        let elsewhere = Box::new(1);
        assert!(around((&raw const *elsewhere).addr()).is_empty());
        assert!(around(0).is_empty());
    }
}
