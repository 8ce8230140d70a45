//! What is built for the machine, kept by the content of its recipe, for every clone of the repository on this
//! machine: each entry is a folder `KIND-KEY`, complete from the moment it has that name.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::say;

/// Where the cache is, when it is not in the user's cache folder.
pub const VARIABLE: &str = "DEMOTIC_VM_CACHE";

/// An entry that has not been used for this long is removed when another of its kind is built.
const UNUSED: Duration = Duration::from_secs(14 * 24 * 3600);

/// The file of an entry whose time says when it was last used.
const USED: &str = "used";

/// The cache.
pub struct Cache {
    folder: PathBuf,
}

/// What an entry depends on.
pub struct Key(Sha256);

impl Key {
    /// Begins with the source of what builds it.
    pub fn of(builder: &str) -> Self {
        Self(Sha256::new()).and(builder)
    }

    /// Adds something it depends on.
    pub fn and(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
        self
    }

    fn name(self) -> String {
        self.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Cache {
    /// The cache of this user.
    pub fn open() -> Result<Self> {
        let folder = folder()?;
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.canonicalize()? })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An entry, built if it is not there: `build` fills an empty folder, which then gets the entry's name.
    pub fn entry(
        &self,
        kind: &str,
        key: Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.folder.join(format!("{kind}-{}", key.name()));
        let complete = || File::create(place.join(USED)).is_ok();
        if complete() {
            return Ok(place);
        }
        let _lock = self.lock(kind)?;
        if complete() {
            return Ok(place);
        }
        // Nobody else builds one of this kind now: what has this name is left of an interrupted build.
        let partial = self.folder.join(format!("{kind}.partial"));
        remove(&partial)?;
        fs::create_dir(&partial)?;
        build(&partial)?;
        File::create(partial.join(USED))?;
        fs::rename(&partial, &place)?;
        self.prune(kind)?;
        Ok(place)
    }

    /// Keeps others from building one of this kind.
    fn lock(&self, kind: &str) -> Result<File> {
        let file = File::create(self.folder.join(format!("{kind}.lock")))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            say(&format!("waiting for another build of {kind}"));
            flock(&file, FlockOperation::LockExclusive)?;
        }
        Ok(file)
    }

    /// Removes the entries of a kind that have not been used for long.
    fn prune(&self, kind: &str) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let of_kind = name.to_str().and_then(|name| name.rsplit_once('-')).map(|(k, _)| k);
            let used = || entry.path().join(USED).metadata()?.modified();
            if of_kind == Some(kind) && used().is_ok_and(|used| SystemTime::now() > used + UNUSED) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes everything.
    pub fn clean(self) -> Result<()> {
        remove(&self.folder)
    }
}

/// `$DEMOTIC_VM_CACHE`, or `demotic/vm` in the user's cache folder.
fn folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable(VARIABLE) {
        return Ok(folder.into());
    }
    let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    let caches = caches.with_context(|| format!("neither HOME nor {VARIABLE} is set"))?;
    Ok(caches.join("demotic/vm"))
}

/// Removes a folder, but nothing that is mounted in it.
fn remove(folder: &Path) -> Result<()> {
    let done = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(folder).status()?;
    if !done.success() {
        bail!("{} could not be removed", folder.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::of("builder").and("input")
    }

    #[test]
    fn keys_differ_by_every_input_and_by_where_it_ends() {
        let names = [
            key().name(),
            Key::of("builde").and("rinput").name(),
            key().and("").name(),
            Key::of("builder").and("inpux").name(),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name));
        }
        assert_eq!(key().name(), key().name());
    }

    #[test]
    fn an_entry_is_built_once_and_only_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().into() };
        let interrupted = cache.entry("thing", key(), |place| {
            fs::write(place.join("half"), "")?;
            bail!("interrupted")
        });
        assert!(interrupted.is_err());
        let built = cache.entry("thing", key(), |place| {
            assert!(!place.join("half").exists());
            Ok(fs::write(place.join("whole"), "")?)
        });
        assert!(built.unwrap().join("whole").exists());
        let again = cache.entry("thing", key(), |_| bail!("built twice"));
        assert!(again.unwrap().join("whole").exists());
    }

    #[test]
    fn what_has_long_been_unused_goes_when_another_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().into() };
        let old = cache.entry("thing", key(), |_| Ok(())).unwrap();
        let long_ago = SystemTime::now() - 2 * UNUSED;
        File::open(old.join(USED)).unwrap().set_modified(long_ago).unwrap();
        let other = cache.entry("thing", key().and("more"), |_| Ok(())).unwrap();
        assert!(!old.exists());
        assert!(other.exists());
    }
}
