//! One process's mapping of a segment: made, opened, checked, backed by memory as it is used.
//!
//! To copy: shm/, departures.rs.

#![allow(unsafe_code)] // The mapping crosses threads; its header is a reference into it.

use super::error::{CREATION, ShmError};
use super::{AtomicU32, AtomicU64, Shared, name};
use nix::fcntl::posix_fallocate;
use nix::sys::resource::{Resource, getrlimit};
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One process's view of a segment.
pub(super) struct Mapping {
    pub(super) memory: Shmem,
    /// For reserving memory; its shared lock says that this process uses the segment, and the
    /// kernel gives it up for a process that is killed.
    file: File,
    pub(super) name: String,
    /// Bytes that the user may use.
    pub(super) size: usize,
    /// This many bytes of the user's are known to be there.
    pub(super) reserved: AtomicUsize,
    /// The process that created it; only there it is unlinked.
    pub(super) creator: Option<u32>,
}

// SAFETY: `Shmem` is only not Send for its raw pointer; the mapping belongs to the process, not
// to a thread, and this type gives out no reference to it except of `Shared` types.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` has no interior mutability besides atomics.
unsafe impl Sync for Mapping {}

/// The first bytes of every segment.
#[repr(C, align(128))]
pub(super) struct Header {
    magic: AtomicU64,
    size: AtomicU64,
    /// Handles that were serialised, and those made from that. Where they differ a handle is on
    /// its way to a process that has not opened it yet.
    pub(super) sent: AtomicU32,
    opened: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Shared for Header {}

impl Header {
    /// Whether a handle is on its way.
    fn is_expected(&self) -> bool {
        self.more_than(self.opened.load(Ordering::SeqCst))
    }

    /// One has arrived. Never more than were sent: bytes that lie somewhere, in a shared value
    /// perhaps, may be opened more often than they were written.
    pub(super) fn arrive(&self) {
        let one_more = |opened| self.more_than(opened).then_some(opened.wrapping_add(1));
        let _ = self
            .opened
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
    }

    /// Whether more than so many were sent. (Both numbers wrap.)
    fn more_than(&self, opened: u32) -> bool {
        let sent = self.sent.load(Ordering::SeqCst);
        sent.wrapping_sub(opened).cast_signed() > 0
    }
}

/// The last byte is the layout's version.
const MAGIC: u64 = 0x6d70_7365_676d_7401;
/// Bytes before those of the user.
pub(super) const HEADER: usize = size_of::<Header>();
/// Reserved at a time: a page costs far less together with its neighbours.
const STEP: usize = 1 << 20;

impl Mapping {
    pub(super) fn created(
        mut memory: Shmem,
        name: String,
        size: usize,
    ) -> Result<Mapping, ShmError> {
        // The crate would unlink the name from a forked child as well; from here on the name is
        // this module's.
        memory.set_owner(false);
        let file = open_file(&name).inspect_err(|_| {
            let _ = unlink(&name);
        })?;
        let mapping = Mapping {
            memory,
            file,
            name,
            size,
            reserved: AtomicUsize::new(0),
            creator: Some(process::id()),
        };
        let prepared = mapping.reserve_to(0).map(|()| {
            let header = mapping.header();
            header.size.store(size as u64, Ordering::Relaxed);
            header.magic.store(MAGIC, Ordering::Release);
        });
        match prepared {
            Ok(()) => Ok(mapping),
            Err(error) => {
                let _ = unlink(&mapping.name);
                Err(error)
            }
        }
    }

    pub(super) fn open(name: &str) -> Result<Mapping, ShmError> {
        let _held = hold_stdio();
        let file = open_file(name)?;
        let length = file
            .metadata()
            .map_err(|error| ShmError::os("inspection", name, &error))?
            .len();
        if length <= HEADER as u64 {
            return Err(ShmError::invalid(
                name,
                format!("it has {length} bytes only"),
            ));
        }
        let memory = ShmemConf::new()
            .os_id(name)
            .open()
            .map_err(|error| from_crate("opening", name, &error))?;
        let size = memory.len().saturating_sub(HEADER);
        let mapping = Mapping {
            memory,
            file,
            name: name.into(),
            size,
            reserved: AtomicUsize::new(0),
            creator: None,
        };
        if mapping.memory.len() as u64 != length {
            return Err(ShmError::invalid(name, "its size changes"));
        }
        mapping.reserve_to(0)?;
        mapping.check()?;
        Ok(mapping)
    }

    fn check(&self) -> Result<(), ShmError> {
        let header = self.header();
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(ShmError::invalid(
                &self.name,
                "it is no segment of this version of the library",
            ));
        }
        if header.size.load(Ordering::Relaxed) != self.size as u64 {
            return Err(ShmError::invalid(
                &self.name,
                "its header does not fit its size",
            ));
        }
        Ok(())
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, longer than a header (checked when it was made)
        // and its first page is reserved before anybody calls this; atomics only.
        unsafe { &*self.memory.as_ptr().cast::<Header>() }
    }

    #[cold]
    pub(super) fn reserve_to(&self, end: usize) -> Result<(), ShmError> {
        if end > self.size {
            return Err(ShmError::Size { bytes: end as u64 });
        }
        let from = match self.reserved.load(Ordering::Relaxed) {
            0 => 0,
            user => HEADER + user,
        };
        let total = self.memory.len();
        let generous = (HEADER + end).next_multiple_of(STEP.min(total / 8).max(4096));
        let to = match self.allocate(from, generous.min(total)) {
            Ok(()) => generous.min(total),
            Err(_) => {
                // Perhaps there is room for what is needed, if not for the whole step.
                self.allocate(from, HEADER + end)?;
                HEADER + end
            }
        };
        self.reserved.fetch_max(to - HEADER, Ordering::Relaxed);
        Ok(())
    }

    fn allocate(&self, from: usize, to: usize) -> Result<(), ShmError> {
        if to <= from {
            return Ok(()); // Another thread was faster.
        }
        let (mut at, mut step) = (from, to - from);
        while at < to {
            let bytes = step.min(to - at);
            match posix_fallocate(&self.file, at as libc::off_t, bytes as libc::off_t) {
                Ok(()) => at += bytes,
                // A signal undoes all that the call has done (not any more in later kernels). Where
                // the next is always near, a profiler's, smaller steps come to an end.
                Err(nix::Error::EINTR) => step = (step / 2).max(4096),
                Err(nix::Error::ENOSPC) => return Err(ShmError::no_space((to - from) as u64)),
                Err(errno) => return Err(ShmError::os("reservation", &self.name, &errno.into())),
            }
        }
        self.populate(from, to);
        Ok(())
    }

    /// Maps the pages in one go, which is several times cheaper than a fault for each.
    fn populate(&self, from: usize, to: usize) {
        let from = from / 4096 * 4096;
        // SAFETY: inside the mapping; the advice changes no contents, and where the kernel does
        // not know it (before 5.14) it does nothing and the pages come one by one.
        unsafe {
            let start = self.memory.as_ptr().add(from);
            libc::madvise(start.cast(), to - from, libc::MADV_POPULATE_WRITE);
        }
    }

    /// This process does not use the segment any more: takes its shared lock off. A fork that has a
    /// copy has the same lock, and keeps it as long as it has the descriptor; so that is closed
    /// here, and another takes its place.
    pub(super) fn let_go(&mut self) {
        // For reading only: if it came to stand where a standard stream is expected, nothing
        // could be printed into it.
        let another = name::path(&self.name).and_then(|path| File::open(path).ok());
        if let Some(another) = another.filter(|file| file.as_raw_fd() > 2) {
            self.file = another;
        }
    }

    /// Whether somebody else uses the segment, or is about to, once this process has
    /// [let it go](Mapping::let_go).
    pub(super) fn needed(&self) -> bool {
        if self.header().is_expected() {
            return true;
        }
        // Everybody who has it open holds a shared lock on the file.
        self.file.try_lock().is_err()
    }
}

/// Makes memory under the first of these names that is not taken.
pub(super) fn create(
    total: usize,
    mut name: impl FnMut() -> String,
) -> Result<(Shmem, String), ShmError> {
    let (most, _) = getrlimit(Resource::RLIMIT_FSIZE).unwrap_or((u64::MAX, u64::MAX));
    loop {
        let name = name();
        if total as u64 > most {
            // To try it would be the end of this process (SIGXFSZ).
            let too_big = io::Error::from_raw_os_error(libc::EFBIG);
            return Err(ShmError::os(CREATION, &name, &too_big));
        }
        match ShmemConf::new().os_id(&name).size(total).create() {
            Ok(memory) => return Ok((memory, name)),
            Err(ShmemError::MappingIdExists) => {}
            Err(error) => return Err(from_crate(CREATION, &name, &error)),
        }
    }
}

/// Holds the numbers of those standard streams that are closed while files are opened: what is
/// printed would go into the memory.
pub(super) fn hold_stdio() -> Vec<File> {
    let null = std::iter::from_fn(|| File::open("/dev/null").ok());
    null.take_while(|file| file.as_raw_fd() <= 2).collect()
}

pub(super) fn unlink(name: &str) -> Result<(), ShmError> {
    let path = name::path(name).ok_or_else(|| ShmError::invalid(name, "it is no name"))?;
    std::fs::remove_file(path).map_err(|error| ShmError::os("unlinking", name, &error))
}

fn open_file(name: &str) -> Result<File, ShmError> {
    let path = name::path(name).ok_or_else(|| ShmError::invalid(name, "it is no name"))?;
    let open = |path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // It can only be locked for the moment in which the owner looks whether it is needed.
        for _ in 0..100 {
            if file.try_lock_shared().is_ok() {
                break;
            }
            std::thread::yield_now();
        }
        Ok::<File, io::Error>(file)
    };
    open(path).map_err(|error| ShmError::os("opening", name, &error))
}

fn from_crate(call: &str, name: &str, error: &ShmemError) -> ShmError {
    match error {
        ShmemError::MapCreateFailed(errno)
        | ShmemError::MapOpenFailed(errno)
        | ShmemError::UnknownOsError(errno) => {
            let errno = i32::try_from(*errno).unwrap_or(libc::EIO);
            ShmError::os(call, name, &io::Error::from_raw_os_error(errno))
        }
        other => ShmError::invalid(name, other.to_string()),
    }
}
