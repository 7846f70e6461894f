//! Where in memory a part of this program's executable is, as its program headers say.
//!
//! To copy: image.rs.

#![allow(unsafe_code)] // Reads the program headers, where the kernel says they are.

use std::ops::Range;

/// The part of the executable that `address` is in: the one that is made read-only after relocation
/// (`PT_GNU_RELRO` in elf(5)), else one that is loaded as it is (`PT_LOAD`). Empty if there is none,
/// as for what is in a shared library.
pub(crate) fn around(address: usize) -> Range<usize> {
    // SAFETY: getauxval has no preconditions.
    let (table, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as usize,
            libc::getauxval(libc::AT_PHNUM) as usize,
        )
    };
    if table == 0 {
        return 0..0;
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
