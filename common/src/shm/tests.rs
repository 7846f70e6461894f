use super::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::path::PathBuf;
use testkit::isolated;

pub(super) fn file_of(segment: &Segment) -> PathBuf {
    name::path(segment.name()).unwrap()
}

/// Runs `f` in a forked child, which ends without running anything of this process's. For a
/// process with one thread: another could be making a segment, under a lock.
pub(super) fn forked(f: impl FnOnce() -> bool) {
    // SAFETY: this process has one thread (the caller's promise).
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(false);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(i32::from(!ok)) };
    }
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY: waits for the child above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the forked child failed");
}

#[test]
fn what_one_handle_writes_the_other_reads() {
    // H-001, H-002. Names are given and not chosen, and who opens one has no size to say.
    let segment = Segment::create(512).unwrap();
    assert_eq!(segment.len(), 512);
    segment.write(511, &[42]).unwrap();
    let mut byte = [0];
    Segment::open(segment.name())
        .unwrap()
        .read(511, &mut byte)
        .unwrap();
    assert_eq!(byte, [42]);
    assert!(segment.write(511, &[1, 2]).is_err());
    assert!(segment.read(usize::MAX, &mut byte).is_err());
}

#[test]
fn impossible_sizes_and_names_are_errors() {
    // H-003, H-005, H-006, H-007. There is no negative size, none that is not said, and no name
    // to be made that exists.
    assert_eq!(Segment::create(0).unwrap_err(), ShmError::Size { bytes: 0 });
    assert!(matches!(
        Segment::create(usize::MAX),
        Err(ShmError::Size { .. })
    ));
    assert!(matches!(
        Segment::open("mp-none"),
        Err(ShmError::NotFound { .. })
    ));
    for name in ["", "a\0b"] {
        let opened = Segment::open(name);
        assert!(matches!(opened, Err(ShmError::Invalid { .. })), "{name:?}");
    }
    let segment = Segment::create(1).unwrap();
    segment.unlink().unwrap();
    assert!(matches!(segment.unlink(), Err(ShmError::NotFound { .. })));
}

#[test]
fn one_over_the_limit_on_files_is_an_error() {
    isolated(|| {
        let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 1 << 16, most).unwrap();
        let error = Segment::create(1 << 16).unwrap_err();
        assert!(error.to_string().contains("ulimit -f"), "{error}");
        Segment::create(1 << 15).unwrap().write(0, b"x").unwrap();
    });
}

#[test]
fn a_name_that_is_taken_is_left_alone() {
    // H-004
    let first = Segment::create(10).unwrap();
    first.write(0, b"first").unwrap();
    let free = Owner::current().name();
    let mut names = [first.name(), first.name(), &free]
        .map(String::from)
        .into_iter();
    let (_memory, name) = super::create(HEADER + 10, || names.next().unwrap()).unwrap();
    assert_eq!(name, free);
    let mut bytes = [0; 5];
    first.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"first");
}

#[test]
fn the_owners_last_handle_removes_the_name() {
    let segment = Segment::create(10_000).unwrap();
    let (file, name) = (file_of(&segment), segment.name().to_owned());
    let second = segment.clone();
    drop(segment);
    assert!(file.exists());
    drop(second);
    assert!(!file.exists());
    assert!(matches!(
        Segment::open(&name),
        Err(ShmError::NotFound { .. })
    ));
}

#[test]
fn a_handle_on_its_way_to_what_is_gone_is_an_error() {
    // H-009
    let segment = Segment::create(100).unwrap();
    let sent = crate::codec::encode(&segment).unwrap();
    let name = segment.name().to_owned();
    segment.unlink().unwrap();
    drop(segment);
    let error = crate::codec::decode::<Segment>(&sent).unwrap_err();
    let gone = ShmError::NotFound { name }.to_string();
    assert!(error.to_string().contains(&gone), "{error}");
}

#[test]
fn a_forked_childs_copy_does_not_destroy_the_owners() {
    isolated(|| {
        let segment = Segment::create(100).unwrap();
        let copy = segment.clone();
        forked(move || {
            copy.write(0, b"child").unwrap();
            drop(copy);
            true
        });
        assert!(file_of(&segment).exists());
        let mut bytes = [0; 5];
        segment.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"child");
    });
}

#[test]
fn a_handle_on_its_way_keeps_the_name() {
    isolated(|| {
        let segment = Segment::create(100).unwrap();
        segment.write(0, b"x").unwrap();
        let file = file_of(&segment);
        let sent = crate::codec::encode(&segment).unwrap();
        drop(segment);
        assert!(file.exists(), "nobody has opened it yet");
        forked(|| {
            let segment: Segment = crate::codec::decode(&sent).unwrap();
            let mut byte = [0];
            segment.read(0, &mut byte).unwrap();
            byte == *b"x"
        });
        // The child has opened and dropped it: the next one to look removes the name.
        drop(Segment::create(1).unwrap());
        assert!(!file.exists());
    });
}

#[test]
fn a_handle_that_comes_back_to_its_owner_is_the_last() {
    let segment = Segment::create(100).unwrap();
    let file = file_of(&segment);
    let sent = crate::codec::encode(&segment).unwrap();
    drop(segment);
    drop(crate::codec::decode::<Segment>(&sent).unwrap());
    assert!(!file.exists());
}

#[test]
fn a_handle_that_is_opened_twice_was_on_its_way_once() {
    let segment = Segment::create(100).unwrap();
    let file = file_of(&segment);
    let sent = crate::codec::encode(&segment).unwrap();
    for _ in 0..2 {
        crate::codec::decode::<Segment>(&sent).unwrap();
    }
    // One more is on its way and taken back.
    drop(Departures::of(|| crate::codec::encode(&segment)));
    drop(segment);
    assert!(!file.exists());
}

#[test]
fn what_a_killed_owner_left_is_swept() {
    isolated(|| {
        // H-022. Nothing warns of it: there is no tracker.
        let (reader, writer) = io::pipe().unwrap();
        forked(|| {
            use io::Write;
            let segment = Segment::create(1 << 20).unwrap();
            (&writer).write_all(segment.name().as_bytes()).unwrap();
            std::mem::forget(segment);
            true // and `_exit`, as if killed
        });
        drop(writer);
        let name = io::read_to_string(reader).unwrap();
        let _any = Segment::create(1).unwrap();
        assert!(!name::path(&name).unwrap().exists());
    });
}

#[test]
fn foreign_files_are_not_taken_for_segments() {
    let segment = Segment::create(100).unwrap();
    let mut copy = file_of(&segment);
    copy.set_file_name(format!("mp-test-{}", std::process::id()));
    for contents in [&b""[..], b"short", &[7; 5000]] {
        std::fs::write(&copy, contents).unwrap();
        let name = copy.file_name().unwrap().to_str().unwrap();
        assert!(matches!(Segment::open(name), Err(ShmError::Invalid { .. })));
    }
    std::fs::remove_file(&copy).unwrap();
}

#[test]
fn only_the_user_may_open_it() {
    use std::os::unix::fs::MetadataExt;
    let segment = Segment::create(100).unwrap();
    let mode = std::fs::metadata(file_of(&segment)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn memory_comes_as_it_is_used() {
    use std::os::unix::fs::MetadataExt;
    let segment = Segment::create(1 << 30).unwrap();
    let used = || std::fs::metadata(file_of(&segment)).unwrap().blocks() * 512;
    assert!(used() <= 2 << 20);
    segment.write(10 << 20, b"x").unwrap();
    assert!((10 << 20..13 << 20).contains(&used()), "{}", used());
}

#[test]
fn what_another_thread_has_reserved_meanwhile_is_there() {
    let segment = Segment::create(1 << 20).unwrap();
    segment.reserve(1 << 20).unwrap();
    // A thread comes here that has seen less.
    assert_eq!(segment.0.reserve_to(1), Ok(()));
}

#[test]
fn what_an_earlier_process_with_this_id_left_is_swept() {
    // As in a container that is started again with the same /dev/shm.
    let name = Owner::current().earlier().name();
    let path = name::path(&name).unwrap();
    std::fs::write(&path, [0; 100]).unwrap();
    let segment = Segment::create(1).unwrap();
    assert!(!path.exists() && file_of(&segment).exists());
}

#[test]
fn an_error_names_the_remedy_however_it_is_printed() {
    let open_files = std::io::Error::from_raw_os_error(libc::EMFILE);
    let error = ShmError::os("opening", "mp-1", &open_files);
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert_eq!(format!("{error:?}"), error.to_string());
    // That there is no directory is not that a segment is gone.
    for errno in [libc::ENOENT, libc::EROFS, libc::EACCES] {
        let refused = io::Error::from_raw_os_error(errno);
        let error = ShmError::os(error::CREATION, "mp-1", &refused).to_string();
        assert!(
            error.contains("/dev/shm") && error.contains("mount -t tmpfs"),
            "{error}"
        );
    }
}

#[test]
fn one_that_cannot_be_seen_is_not_dead() {
    isolated(|| {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let none: Option<&str> = None;
        let hidden = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| {
                let (proc, hide) = (Some("proc"), Some("hidepid=2"));
                mount(proc, "/proc", proc, MsFlags::empty(), hide)
            });
        if let Err(errno) = hidden {
            return eprintln!("SKIPPED: no /proc of our own here: {errno}");
        }
        let this = Owner::current();
        forked(move || {
            // Root's group sees everybody.
            nix::unistd::setgid(61_234.into()).unwrap();
            nix::unistd::setuid(61_234.into()).unwrap();
            let stat = format!("/proc/{}/stat", nix::unistd::getppid());
            !std::path::Path::new(&stat).exists() && !this.is_dead()
        });
    });
}
