//! What differs between two runs, for a person to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use similar::TextDiff;

use crate::sandbox::Kept;

/// How many lines of a difference are shown.
const SHOWN: usize = 40;

/// What differs in standard output and in the files written, in a few lines; nothing when the runs are alike.
pub fn files(left: &Kept, right: &Kept, ignore: &[String]) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    differences.extend(contents("standard output", &left.stdout, &right.stdout)?);
    let (left, right) = (entries(&left.files)?, entries(&right.files)?);
    let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for name in names {
        if ignore.iter().any(|ignored| name.starts_with(ignored)) {
            continue;
        }
        match (left.get(name), right.get(name)) {
            (Some(left), Some(right)) => {
                differences.extend(left.difference(&name.display().to_string(), right)?)
            }
            (Some(_), None) => differences.push(format!("{} was not written", name.display())),
            (None, _) => differences.push(format!("{} should not be there", name.display())),
        }
    }
    Ok(differences)
}

/// A file, or what stands in its place.
struct Entry {
    kind: Kind,
    mode: u32,
    path: PathBuf,
}

#[derive(PartialEq, Debug)]
enum Kind {
    File,
    Directory,
    Link(PathBuf),
    Socket,
    Pipe,
    Other,
}

impl Entry {
    fn difference(&self, name: &str, other: &Self) -> Result<Option<String>> {
        if self.kind != other.kind {
            return Ok(Some(format!("{name} is {:?}, not {:?}", other.kind, self.kind)));
        }
        if self.mode != other.mode {
            return Ok(Some(format!("{name} has mode {:o}, not {:o}", other.mode, self.mode)));
        }
        if self.kind == Kind::File { contents(name, &self.path, &other.path) } else { Ok(None) }
    }
}

/// All that is in a folder, by its name there.
fn entries(folder: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            let data = path.symlink_metadata()?;
            let kind = kind(&path, data.file_type())?;
            if kind == Kind::Directory {
                folders.push(path.clone());
            }
            let name = path.strip_prefix(folder)?.to_owned();
            found.insert(name, Entry { kind, mode: data.permissions().mode() & 0o7777, path });
        }
    }
    Ok(found)
}

fn kind(path: &Path, file_type: fs::FileType) -> io::Result<Kind> {
    Ok(match file_type {
        kind if kind.is_symlink() => Kind::Link(fs::read_link(path)?),
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_file() => Kind::File,
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_fifo() => Kind::Pipe,
        _ => Kind::Other,
    })
}

/// What differs between two files.
fn contents(name: &str, left: &Path, right: &Path) -> Result<Option<String>> {
    let (left, right) = (fs::read(left)?, fs::read(right)?);
    if left == right {
        return Ok(None);
    }
    let difference = match (std::str::from_utf8(&left), std::str::from_utf8(&right)) {
        (Ok(left), Ok(right)) => lines(left, right),
        _ => bytes(&left, &right),
    };
    Ok(Some(format!("{name} differs (- native, + translated):\n{difference}")))
}

/// The lines that two texts differ in.
pub fn lines(left: &str, right: &str) -> String {
    let difference = TextDiff::configure().timeout(Duration::from_secs(5)).diff_lines(left, right);
    let text = difference.unified_diff().context_radius(2).to_string();
    let mut shown: String =
        text.lines().take(SHOWN).map(|line| format!("    {line:.200}\n")).collect();
    if text.lines().count() > SHOWN {
        shown += &format!("    … {} lines more\n", text.lines().count() - SHOWN);
    }
    shown
}

fn bytes(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let window = |bytes: &[u8]| {
        bytes[at..].iter().take(16).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    format!(
        "    from byte {at} (of {} and {})\n    - {}\n    + {}\n",
        left.len(),
        right.len(),
        window(left),
        window(right)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(left: &[u8], right: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, left).unwrap();
        fs::write(&two, right).unwrap();
        contents("x", &one, &two).unwrap()
    }

    #[test]
    fn equal_files_do_not_differ() {
        assert_eq!(difference(b"a\nb\n", b"a\nb\n"), None);
    }

    #[test]
    fn text_is_compared_by_lines() {
        let text = difference(b"a\nb\nc\n", b"a\nX\nc\n").unwrap();
        assert!(text.contains("    -b\n    +X\n"), "{text}");
    }

    #[test]
    fn other_bytes_are_shown_from_where_they_differ() {
        let text = difference(&[0xff, 1, 2], &[0xff, 1, 3, 4]).unwrap();
        assert!(text.contains("from byte 2 (of 3 and 4)\n    - 02\n    + 03 04\n"), "{text}");
    }

    #[test]
    fn a_long_difference_is_cut() {
        let text = difference(b"", "line\n".repeat(1000).as_bytes()).unwrap();
        assert!(text.lines().count() < SHOWN + 5);
        assert!(text.contains("lines more"));
    }
}
