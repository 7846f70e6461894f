//! Each piece of `common` can be copied into another project: the last line of its header names
//! the files it needs. Here each such list is copied, as a person would, into an empty crate of its
//! own, and all of them are type-checked together, offline.
//!
//! The copied files keep their places under `src/`, so that `crate::codec` and the like still
//! name them. Of a folder of which only some files are listed, `mod.rs` is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MEMBER: &str = env!("CARGO_MANIFEST_DIR");

/// Paths under `src/`; a folder's ends in `/`.
type Files = BTreeSet<String>;

#[test]
fn every_list_is_enough() {
    let pieces = pieces();
    assert!(pieces.len() > 5, "{pieces:?}");
    let workspace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("copy_out");
    write_workspace(&workspace);
    let mut kept = BTreeSet::from(["Cargo.toml".to_owned(), "Cargo.lock".to_owned()]);
    for (name, files) in &pieces {
        write_crate(&workspace.join(name), name, files);
        kept.insert(name.clone());
    }
    remove_others(&workspace, &kept);

    let check = Command::new(env!("CARGO"))
        .args([
            "check",
            "--workspace",
            "--offline",
            "--quiet",
            "--keep-going",
        ])
        .args(["--color", "never"])
        .current_dir(&workspace)
        .env(
            "CARGO_TARGET_DIR",
            workspace.with_file_name("copy_out_target"),
        )
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
}

/// Every piece's name and what its header lists, for those that list different things.
fn pieces() -> BTreeMap<String, Files> {
    let mut sources = Vec::new();
    find_sources("", &mut sources);
    let mut pieces = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for file in sources {
        let Some(files) = listed(&file) else {
            // Inside a folder, a file that has no list goes with the folder.
            let goes_with_its_folder = file.contains('/') && !file.ends_with("/mod.rs");
            assert!(
                goes_with_its_folder,
                "{file}: its header has no `To copy: ..`"
            );
            continue;
        };
        if seen.insert(files.clone()) {
            let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
            pieces.insert(name.replace('/', "_"), files);
        }
    }
    pieces
}

/// The source files under `folder` but the crate's own and the tests'.
fn find_sources(folder: &str, found: &mut Vec<String>) {
    for name in names(&source(folder)) {
        let path = format!("{folder}{name}");
        if path == "lib.rs" || name.starts_with("tests") {
            continue;
        }
        if source(&path).is_dir() {
            find_sources(&format!("{path}/"), found);
        } else {
            found.push(path);
        }
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(MEMBER).join("src").join(path)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().expect("a plain name"))
        .collect();
    names.sort_unstable_by_key(|name| (name != "mod.rs", name.clone()));
    names
}

/// What a header lists, in its last words.
fn listed(file: &str) -> Option<Files> {
    let text = fs::read_to_string(source(file)).expect("a source");
    let header: Vec<&str> = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    let header = header.join(" ");
    let (_, list) = header.rsplit_once("To copy: ")?;
    let list = list.strip_suffix('.').unwrap_or_else(|| {
        panic!("{file}: the header should end with `To copy: ..` and a full stop, not {list:?}")
    });
    let mut files = Files::new();
    for item in list.split(", ") {
        add_item(file, item, &mut files);
    }
    // A folder's file may be listed with the whole folder, or as well.
    let whole: Vec<String> = files.iter().filter(|f| f.ends_with('/')).cloned().collect();
    files.retain(|f| !whole.iter().any(|w| f != w && f.starts_with(w)));
    let own = |f: &String| file == f || file.starts_with(f) || file.ends_with("/mod.rs");
    assert!(
        files.iter().any(own),
        "{file} does not list itself: {files:?}"
    );
    Some(files)
}

/// `a.rs`, in `src/` or beside the file that lists it; `a/` or `the folder a/`, perhaps with `and
/// what its mod.rs names`.
fn add_item(file: &str, item: &str, files: &mut Files) {
    let item = item.trim_start_matches("the folder ");
    if let Some(folder) = item.strip_suffix(" and what its mod.rs names") {
        files.extend(listed(&format!("{folder}mod.rs")).expect("a list"));
        return;
    }
    let beside = Path::new(file).parent().expect("a folder").join(item);
    let beside = beside.to_str().expect("a plain name").to_owned();
    let path = if source(item).exists() {
        item.to_owned()
    } else {
        beside
    };
    let on_disk = source(&path);
    assert!(on_disk.exists(), "{file} lists {item}, which is not there");
    assert_eq!(on_disk.is_dir(), path.ends_with('/'), "{file}: {item}");
    files.insert(path);
}

/// A workspace of its own, with the versions that this one was built with.
fn write_workspace(folder: &Path) {
    let root = Path::new(MEMBER).parent().expect("the workspace");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let dependencies: String = section(&manifest, "workspace.dependencies")
        .filter(|line| !line.contains("path = "))
        .collect();
    write(
        &folder.join("Cargo.toml"),
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n\n[workspace.dependencies]\n{dependencies}"
        ),
    );
    let lock = folder.join("Cargo.lock");
    if !lock.exists() || newer(&root.join("Cargo.lock"), &lock) {
        fs::copy(root.join("Cargo.lock"), lock).expect("Cargo.lock");
    }
}

fn write_crate(folder: &Path, name: &str, files: &Files) {
    let manifest = fs::read_to_string(Path::new(MEMBER).join("Cargo.toml")).expect("Cargo.toml");
    let dependencies: String = section(&manifest, "dependencies").collect();
    write(
        &folder.join("Cargo.toml"),
        &format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[dependencies]\n{dependencies}"
        ),
    );
    for listed in files {
        copy(listed, &folder.join("src"));
    }
    write_modules(
        &folder.join("src"),
        "lib.rs",
        files.iter().map(String::as_str),
    );
}

/// The `mod` lines for what was copied to a folder.
fn write_modules<'a>(folder: &Path, name: &str, files: impl Iterator<Item = &'a str>) {
    let mut modules = BTreeMap::<&str, Vec<&str>>::new();
    for file in files {
        let (module, inside) = file.split_once('/').unwrap_or((file, ""));
        modules.entry(module).or_default().push(inside);
    }
    let mut text = "#![allow(dead_code, unused_imports)]\n".to_owned();
    for (module, inside) in modules {
        let is_whole = inside.contains(&"") || inside.contains(&"mod.rs");
        let module = module.trim_end_matches(".rs");
        text += &format!("pub mod {module};\n");
        if name == "mod.rs" {
            text += &format!("pub use {module}::*;\npub(crate) use {module}::*;\n");
        }
        if !is_whole {
            write_modules(&folder.join(module), "mod.rs", inside.into_iter());
        }
    }
    write(&folder.join(name), &text);
}

/// A file, or a folder with all that is in it.
fn copy(listed: &str, to: &Path) {
    if !listed.ends_with('/') {
        let text = fs::read_to_string(source(listed)).expect("a source");
        return write(&to.join(listed), &text);
    }
    for name in names(&source(listed)) {
        let is_folder = source(listed).join(&name).is_dir();
        copy(
            &format!("{listed}{name}{}", if is_folder { "/" } else { "" }),
            to,
        );
    }
}

/// Writes what has changed: cargo looks at the time of writing.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn newer(a: &Path, b: &Path) -> bool {
    let time = |path: &Path| {
        fs::metadata(path)
            .and_then(|m| m.modified())
            .expect("its time")
    };
    time(a) > time(b)
}

/// Pieces that were renamed since the last run.
fn remove_others(workspace: &Path, kept: &BTreeSet<String>) {
    for name in names(workspace) {
        if !kept.contains(&name) {
            fs::remove_dir_all(workspace.join(name)).expect("an old piece");
        }
    }
}

/// The lines of a manifest's section, with their ends.
fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("[{name}]\n");
    manifest
        .split_inclusive('\n')
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
}
