//! What every member of the workspace has in common.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let common = Path::new(env!("CARGO_MANIFEST_DIR"));
    common.parent().expect("the workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The strings in `key = [..]` of the root manifest.
fn list(key: &str) -> Vec<String> {
    let manifest = read("Cargo.toml");
    let (_, list) = manifest.split_once(&format!("\n{key} = [")).expect(key);
    let (list, _) = list.split_once(']').expect("the list's end");
    list.split(',')
        .map(|item| item.trim().trim_matches('"').to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// The lines of a manifest's section.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    manifest
        .lines()
        .skip_while(|line| *line != format!("[{name}]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if path.is_dir() && !hidden && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_member_inherits_lints_and_package_data() {
    for member in list("members") {
        let manifest = read(Path::new(&member).join("Cargo.toml"));
        assert_eq!(
            section(&manifest, "lints"),
            ["workspace = true"],
            "{member}: `[lints]`"
        );
        let package = section(&manifest, "package");
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            let inherited = format!("{key}.workspace = true");
            assert!(package.contains(&&*inherited), "{member}: `{inherited}`");
        }
    }
}

/// A version stands in one place: the root manifest.
#[test]
fn every_dependency_is_the_workspaces() {
    for member in list("members") {
        let manifest = read(Path::new(&member).join("Cargo.toml"));
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for dependency in section(&manifest, kind) {
                let inherited = dependency.contains(".workspace = true")
                    || dependency.contains("{ workspace = true");
                assert!(inherited, "{member}: {dependency}");
            }
        }
    }
}

#[test]
fn every_folder_with_a_manifest_is_a_member_or_excluded() {
    let mut known = list("members");
    known.extend(list("exclude"));
    assert_eq!(list("exclude"), ["bench"]);
    for entry in fs::read_dir(root()).expect("the workspace").flatten() {
        let name = entry.file_name().into_string().expect("a plain name");
        if entry.path().join("Cargo.toml").exists() {
            assert!(known.contains(&name), "{name}");
        }
    }
}

/// The benchmarks are no member, but are held to the same lints.
#[test]
fn the_benchmarks_have_the_same_lints() {
    let (ours, theirs) = (read("Cargo.toml"), read("bench/Cargo.toml"));
    for lints in ["workspace.lints.rust", "workspace.lints.clippy"] {
        assert_eq!(section(&ours, lints), section(&theirs, lints), "{lints}");
    }
}

/// The codec must be replaceable by editing one file.
#[test]
fn only_the_codec_names_bincode() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 20, "{files:?}");
    let naming: Vec<_> = files
        .iter()
        .filter(|file| !file.ends_with("tests/workspace.rs"))
        .filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("bincode")))
        .collect();
    assert_eq!(naming, [&root().join("common/src/codec.rs")]);
    for member in list("members").iter().filter(|member| *member != "common") {
        let manifest = read(Path::new(member).join("Cargo.toml"));
        assert!(!manifest.contains("bincode"), "{member}");
    }
}

/// A module that allows unsafe code says what for.
#[test]
fn unsafe_code_is_allowed_with_a_reason() {
    let mut files = Vec::new();
    sources(&root().join("common/src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        for line in text
            .lines()
            .filter(|line| line.starts_with("#![allow(unsafe_code)"))
        {
            assert!(line.contains("] // "), "{}: {line}", file.display());
        }
    }
}

/// All members' examples are built into one folder: two of one name would overwrite each other.
#[test]
fn no_two_examples_have_one_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = std::collections::BTreeMap::new();
    for member in std::fs::read_dir(&root).unwrap().flatten() {
        let examples = std::fs::read_dir(member.path().join("examples"));
        for example in examples.into_iter().flatten().flatten() {
            let other = seen.insert(example.file_name(), example.path());
            assert_eq!(other, None, "and {}", example.path().display());
        }
    }
}
