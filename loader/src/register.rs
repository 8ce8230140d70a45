//! `demotic register` and `unregister`: what has to change in the kernel's table of program formats, and in
//! the files of binfmt.d(5) that systemd-binfmt fills it from at boot. The decisions are functions of the
//! [`State`] found; what was done on the way is kept in Demotic's file, so that it can be undone.

use crate::binfmt::{DIRECTORY, Entry, KINDS, NAME, Table, chosen};
use crate::cli::RegisterOptions;
use crate::{executable, status};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use syscalls::exe_file::second_name;

/// Folders of rule files; one of the same name in an earlier folder counts instead.
const FOLDERS: [&str; 4] =
    ["/etc/binfmt.d", "/run/binfmt.d", "/usr/local/lib/binfmt.d", "/usr/lib/binfmt.d"];
/// Where Demotic's file goes: with the distribution's, or with the administrator's if /usr is read-only,
/// or where it is gone after a reboot.
const LASTING: &str = "/usr/lib/binfmt.d";
const READ_ONLY_USR: &str = "/etc/binfmt.d";
const UNTIL_REBOOT: &str = "/run/binfmt.d";
/// The name of Demotic's file.
const FILE: &str = "demotic.conf";
/// What makes a rule file of no effect when a link in its place leads there.
const NOTHING: &str = "/dev/null";

/// A file of binfmt.d.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RuleFile {
    Text(String),
    /// A link to /dev/null, in front of a file of the same name in a later folder.
    Mask,
}

impl RuleFile {
    /// The entries that its rules make, and how many rules it has.
    fn rules(&self) -> (Vec<Entry>, usize) {
        let Self::Text(text) = self else { return (Vec::new(), 0) };
        let rules: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
            .collect();
        (rules.iter().filter_map(|rule| Entry::from_rule(rule)).collect(), rules.len())
    }
}

/// What there is on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    mounted: bool,
    enabled: bool,
    /// The kernel's table, in the order in which it is tried.
    entries: Vec<Entry>,
    files: BTreeMap<PathBuf, RuleFile>,
    /// Second names of the program's file, now or before, that exist, and whether they are this file's.
    links: BTreeMap<PathBuf, bool>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Mount,
    Unmount,
    SwitchAll(bool),
    Add(Entry),
    Remove(String),
    Switch(String, bool),
    Write(PathBuf, String),
    Mask(PathBuf),
    Delete(PathBuf),
    /// Makes a second name of this program's file, in the place of another's.
    Link(PathBuf),
    Unlink(PathBuf),
}

/// What is wanted of the machine.
#[derive(Clone, Debug)]
struct Wanted {
    entry: Entry,
    /// Where the rule file goes.
    folder: &'static str,
    /// Whether other handlers of x86_64 programs are to be turned off.
    replace: bool,
    /// Whether the kernel holds another file open than the one that is there now.
    stale: bool,
    /// The second name that the program's file is to have, where it can have one.
    second_name: Option<PathBuf>,
}

impl State {
    fn read(table: &Table) -> io::Result<Self> {
        let mounted = table.is_mounted();
        let (enabled, entries) =
            if mounted { (table.is_enabled()?, table.entries()?) } else { (true, Vec::new()) };
        let mut files = BTreeMap::new();
        for folder in FOLDERS {
            let Ok(found) = fs::read_dir(folder) else { continue };
            for path in found.filter_map(|file| Some(file.ok()?.path())) {
                if path.extension().is_none_or(|extension| extension != "conf") {
                    continue;
                }
                let masked = fs::read_link(&path).is_ok_and(|target| target == Path::new(NOTHING));
                let file = if masked {
                    RuleFile::Mask
                } else {
                    RuleFile::Text(String::from_utf8_lossy(&fs::read(&path)?).into_owned())
                };
                files.insert(path, file);
            }
        }
        let mut state = Self { mounted, enabled, entries, files, links: BTreeMap::new() };
        let noted = state.own_file().map(|(_, text)| undo_of(text)).unwrap_or_default();
        let noted = noted.into_iter().filter_map(|change| match change {
            Change::Unlink(path) => Some(path),
            _ => None,
        });
        let names = noted.chain(executable::path().map(|path| second_name(&path)));
        let present = names.filter(|path| path.symlink_metadata().is_ok());
        state.links = present.map(|path| (path.clone(), executable::is_at(path))).collect();
        Ok(state)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Demotic's file, wherever it is.
    fn own_file(&self) -> Option<(PathBuf, &str)> {
        FOLDERS.iter().find_map(|folder| {
            let path = Path::new(folder).join(FILE);
            match self.files.get(&path)? {
                RuleFile::Text(text) => Some((path, text.as_str())),
                RuleFile::Mask => None,
            }
        })
    }

    /// The rule files that systemd-binfmt reads, in its order: by name.
    fn effective(&self) -> Vec<(&Path, &RuleFile)> {
        let mut by_name = BTreeMap::new();
        for folder in FOLDERS {
            for (path, file) in &self.files {
                if path.parent() == Some(Path::new(folder)) {
                    by_name.entry(path.file_name()).or_insert((path.as_path(), file));
                }
            }
        }
        by_name.into_values().collect()
    }

    /// Other handlers of x86_64 programs that are on.
    fn rivals(&self) -> impl Iterator<Item = &Entry> {
        let rival = |e: &&Entry| e.name != NAME && e.enabled && e.is_for_x86_64();
        self.entries.iter().filter(rival)
    }

    /// Rule files that register another handler of x86_64 programs at boot.
    fn rival_files(&self) -> Vec<(&Path, &RuleFile)> {
        let rival = |file: &RuleFile| file.rules().0.iter().any(Entry::is_for_x86_64);
        let mut files = self.effective();
        files.retain(|(path, file)| !path.ends_with(FILE) && rival(file));
        files
    }

    /// Whether Demotic's rules come last of those for x86_64 programs at boot, and so win.
    fn wins_at_boot(&self) -> bool {
        let name = |path: &Path| path.file_name().map(|n| n.as_bytes().to_vec());
        self.own_file().is_some()
            && self.rival_files().iter().all(|(path, _)| name(path) < Some(FILE.into()))
    }

    /// Whether the kernel gives every kind of x86_64 program to Demotic.
    fn wins(&self) -> bool {
        let won = |kind| chosen(&self.entries, kind).is_some_and(|entry| entry.name == NAME);
        self.enabled && KINDS.iter().all(won)
    }
}

/// What `register` changes.
fn register(state: &State, wanted: &Wanted) -> Vec<Change> {
    let mut changes = Vec::new();
    let own = state.own_file();
    let mut undo = own.as_ref().map(|(_, text)| undo_of(text)).unwrap_or_default();
    let mut with_undo = |change: Change, reverse: Change| {
        changes.push(change);
        if !undo.contains(&reverse) {
            undo.push(reverse);
        }
    };
    if !state.mounted {
        with_undo(Change::Mount, Change::Unmount);
    }
    if !state.enabled {
        with_undo(Change::SwitchAll(true), Change::SwitchAll(false));
    }
    if wanted.replace {
        for rival in state.rivals() {
            let name = &rival.name;
            with_undo(Change::Switch(name.clone(), false), Change::Switch(name.clone(), true));
        }
        for mask in masks(state, wanted.folder) {
            with_undo(Change::Mask(mask.clone()), Change::Delete(mask));
        }
    }
    if let Some(path) = &wanted.second_name
        && state.links.get(path) != Some(&true)
    {
        with_undo(Change::Link(path.clone()), Change::Unlink(path.clone()));
    }
    match state.entry(NAME) {
        Some(entry) if *entry == wanted.entry && !wanted.stale => {}
        present => {
            changes.extend(present.map(|entry| Change::Remove(entry.name.clone())));
            changes.push(Change::Add(wanted.entry.clone()));
        }
    }
    // A file that is to stay is not made one that goes away.
    let folder = own.as_ref().and_then(|(path, _)| path.parent());
    let folder = match folder {
        Some(folder) if folder != Path::new(UNTIL_REBOOT) => folder,
        _ => Path::new(wanted.folder),
    };
    let (path, text) = (folder.join(FILE), file_text(&wanted.entry, &undo));
    if own.as_ref().is_none_or(|(at, now)| *at != path || *now != text) {
        let elsewhere = own.filter(|(at, _)| *at != path);
        changes.push(Change::Write(path, text));
        changes.extend(elsewhere.map(|(at, _)| Change::Delete(at)));
    }
    changes
}

/// The links that make other handlers' rule files of no effect. A file with rules for something else too,
/// or in the folder of the link itself, has to be left to the administrator.
fn masks(state: &State, folder: &str) -> Vec<PathBuf> {
    let folder = if folder == UNTIL_REBOOT { UNTIL_REBOOT } else { READ_ONLY_USR };
    let rank = |folder: &Path| FOLDERS.iter().position(|f| Path::new(f) == folder);
    let maskable = |path: &&Path, file: &RuleFile| {
        let (entries, rules) = file.rules();
        let alone = entries.iter().filter(|entry| entry.is_for_x86_64()).count() == rules;
        alone && path.parent().and_then(rank) > rank(Path::new(folder))
    };
    let files = state.rival_files();
    let files = files.iter().filter(|(path, file)| maskable(path, file));
    files.filter_map(|(path, _)| Some(Path::new(folder).join(path.file_name()?))).collect()
}

/// What `unregister` changes.
fn unregister(state: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(state.entry(NAME).map(|entry| Change::Remove(entry.name.clone())));
    let own = state.own_file();
    let undo = own.as_ref().map(|(_, text)| undo_of(text)).unwrap_or_default();
    changes.extend(own.map(|(path, _)| Change::Delete(path)));
    let others = state.entries.iter().any(|entry| entry.name != NAME);
    // Only what is still as `register` left it.
    let stands = |change: &Change| match change {
        Change::Switch(name, _) => state.entry(name).is_some_and(|entry| !entry.enabled),
        Change::Delete(path) => state.files.get(path) == Some(&RuleFile::Mask),
        Change::SwitchAll(false) => state.mounted && state.enabled,
        Change::Unmount => state.mounted && !others,
        _ => false,
    };
    changes.extend(undo.into_iter().rev().filter(stands));
    changes.extend(state.links.keys().cloned().map(Change::Unlink));
    changes
}

/// What stands before each change that undoes one, in Demotic's file.
const UNDO: &str = "# undo: ";

/// Demotic's rule file.
fn file_text(entry: &Entry, undo: &[Change]) -> String {
    let mut text = String::from(
        "# Written by «demotic register», removed by «demotic unregister»; see binfmt.d(5).\n",
    );
    for change in undo {
        let line = match change {
            Change::Switch(name, true) => format!("enable {name}"),
            Change::Delete(path) => format!("delete {}", path.display()),
            Change::Unlink(path) => format!("unlink {}", path.display()),
            Change::SwitchAll(false) => "disable all".into(),
            Change::Unmount => "unmount".into(),
            _ => continue,
        };
        text += &format!("{UNDO}{line}\n");
    }
    text + &String::from_utf8_lossy(&entry.to_rule()) + "\n"
}

/// The changes that undo what was done, from Demotic's file.
fn undo_of(text: &str) -> Vec<Change> {
    let change = |line: &str| match line.split_once(' ').unwrap_or((line, "")) {
        ("enable", name) => Some(Change::Switch(name.into(), true)),
        ("delete", path) => Some(Change::Delete(path.into())),
        ("unlink", path) => Some(Change::Unlink(path.into())),
        ("disable", "all") => Some(Change::SwitchAll(false)),
        ("unmount", "") => Some(Change::Unmount),
        _ => None,
    };
    text.lines().filter_map(|line| line.strip_prefix(UNDO)).filter_map(change).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount => write!(f, "mounted binfmt_misc at {DIRECTORY}"),
            Self::Unmount => write!(f, "unmounted binfmt_misc from {DIRECTORY}"),
            Self::SwitchAll(true) => write!(f, "turned binfmt_misc on"),
            Self::SwitchAll(false) => write!(f, "turned binfmt_misc off"),
            Self::Add(entry) => write!(
                f,
                "registered {} for x86_64 programs (entry {}, flags {})",
                entry.interpreter.display(),
                entry.name,
                entry.flags
            ),
            Self::Remove(name) => write!(f, "took the entry {name} away"),
            Self::Switch(name, true) => write!(f, "turned the entry {name} on again"),
            Self::Switch(name, false) => write!(f, "turned the entry {name} off"),
            Self::Write(path, _) => write!(f, "wrote {}", path.display()),
            Self::Mask(path) => write!(f, "made {} a link to {NOTHING}", path.display()),
            Self::Delete(path) | Self::Unlink(path) => write!(f, "deleted {}", path.display()),
            Self::Link(path) => {
                write!(f, "made {}, a link to the program (docs/binfmt.md)", path.display())
            }
        }
    }
}

impl Change {
    fn apply(&self, table: &Table) -> io::Result<()> {
        let in_folder = |path: &Path| path.parent().map_or(Ok(()), fs::create_dir_all);
        match self {
            Self::Mount => mount(),
            // SAFETY: the call reads one string.
            Self::Unmount => done(unsafe { libc::umount2(MOUNT_POINT.as_ptr(), 0) }),
            Self::SwitchAll(on) => table.switch_all(*on),
            Self::Add(entry) => table.add(entry),
            Self::Remove(name) => table.remove(name),
            Self::Switch(name, on) => table.switch(name, *on),
            Self::Write(path, text) => in_folder(path).and_then(|()| fs::write(path, text)),
            Self::Mask(path) => in_folder(path).and_then(|()| symlink(NOTHING, path)),
            Self::Delete(path) | Self::Unlink(path) => fs::remove_file(path),
            Self::Link(path) => link(path),
        }
    }
}

/// Makes `path` a name of this program's file, whatever it was before.
fn link(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path)?;
    }
    fs::hard_link(executable::path()?, path)
}

const MOUNT_POINT: &std::ffi::CStr = c"/proc/sys/fs/binfmt_misc";

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Mounts the table. The kernel has it built in, or in a module.
fn mount() -> io::Result<()> {
    if !Path::new(DIRECTORY).is_dir() {
        // Its failure shows in what follows.
        let _ = Command::new("/sbin/modprobe").arg("binfmt_misc").status();
    }
    let kind = c"binfmt_misc".as_ptr();
    // SAFETY: the call reads three strings.
    done(unsafe { libc::mount(kind, MOUNT_POINT.as_ptr(), kind, 0, std::ptr::null()) })
}

/// Why a command could not be carried out: what was wrong, what to do.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot find its own program: {0}; mount /proc")]
    NoPath(io::Error),
    #[error(
        "{0} needs other files to run, and the kernel opens one only, also for chroots and \
         containers; build it static (docs/binfmt.md)"
    )]
    NotStatic(PathBuf),
    #[error("cannot read {DIRECTORY} or the files of binfmt.d: {0}; run it as root")]
    Read(io::Error),
    #[error("cannot mount binfmt_misc at {DIRECTORY}: {0}; {advice}", advice = mount_advice(.0))]
    Mount(io::Error),
    #[error("the kernel refuses the entry: {0}; {advice}", advice = add_advice(.0))]
    Add(io::Error),
    #[error("{path} is in the way: {0}; {advice}", advice = file_advice(.0), path = .1.display())]
    File(io::Error, PathBuf),
    #[error("cannot change the entry {1} of {DIRECTORY}: {0}; run it as root")]
    Entry(io::Error, String),
}

fn mount_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run it as root of the machine (or of a user namespace, from Linux 6.7 on)"
        }
        Some(libc::ENODEV | libc::ENOENT) => {
            "the kernel has no binfmt_misc: load the module, or build it with CONFIG_BINFMT_MISC"
        }
        _ => "see the kernel's log",
    }
}

fn add_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run it as root, from a file that may be executed and is not on a mount with noexec"
        }
        Some(libc::EINVAL) => "flag F needs Linux 4.8, and the path must be absolute and short",
        Some(libc::EEXIST) => "another demotic register was at work: run it again",
        _ => "see the kernel's log",
    }
}

fn file_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root",
        _ => "make its folder writable, or use --until-reboot",
    }
}

/// Carries changes out, and says each.
fn apply(changes: &[Change], table: &Table) -> Result<(), Failure> {
    for change in changes {
        change.apply(table).map_err(|error| match change {
            Change::Mount | Change::Unmount => Failure::Mount(error),
            Change::Add(_) => Failure::Add(error),
            Change::Remove(name) | Change::Switch(name, _) => Failure::Entry(error, name.clone()),
            Change::SwitchAll(_) => Failure::Entry(error, "status".into()),
            Change::Write(path, _)
            | Change::Mask(path)
            | Change::Delete(path)
            | Change::Link(path)
            | Change::Unlink(path) => Failure::File(error, path.clone()),
        })?;
        println!("{change}");
    }
    Ok(())
}

/// `demotic register`; gives the exit status.
pub fn run_register(options: &RegisterOptions) -> i32 {
    report(try_register(options))
}

/// `demotic unregister`; gives the exit status.
pub fn run_unregister() -> i32 {
    report(try_unregister())
}

fn report(result: Result<bool, Failure>) -> i32 {
    match result {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(failure) => {
            eprintln!("demotic: {failure}");
            1
        }
    }
}

fn try_register(options: &RegisterOptions) -> Result<bool, Failure> {
    let interpreter = executable::path().map_err(Failure::NoPath)?;
    if !executable::linkage().map_err(Failure::NoPath)?.is_static {
        return Err(Failure::NotStatic(interpreter));
    }
    let second_name = second_name(&interpreter);
    let may_link = second_name.parent().and_then(Path::to_str).is_some_and(may_write);
    let second_name = Some(second_name).filter(|_| may_link);
    let entry = Entry::demotic(interpreter, executable::kernel_version());
    let folder = match options.until_reboot {
        true => UNTIL_REBOOT,
        false if may_write(LASTING) => LASTING,
        false => READ_ONLY_USR,
    };
    if options.print {
        print_rules(&entry, folder);
        return Ok(true);
    }
    let table = Table::kernel();
    let state = State::read(&table).map_err(Failure::Read)?;
    // The same path may name another file than the one that the kernel holds open (flag F).
    let stale = state.wins() && status::prove().other_runner().is_some();
    let replace = options.replace;
    let changes = register(&state, &Wanted { entry, folder, replace, stale, second_name });
    apply(&changes, &table)?;
    if changes.is_empty() {
        println!("nothing to do: {} is registered already", executable::path_text());
    }
    let state = State::read(&table).map_err(Failure::Read)?;
    remarks(&state, folder);
    Ok(state.wins())
}

/// Says what else has a say in who runs x86_64 programs.
fn remarks(state: &State, folder: &str) {
    let rivals: Vec<&str> = state.rivals().map(|entry| entry.name.as_str()).collect();
    if !rivals.is_empty() {
        let winner = chosen(&state.entries, &KINDS[0]).map_or("nobody", |entry| &entry.name);
        println!(
            "also registered for x86_64 programs: {}. The kernel tries the newest entry first: {winner} \
             wins. To turn the others off: demotic register --replace",
            rivals.join(", ")
        );
    }
    let lasting = folder != UNTIL_REBOOT;
    if lasting && !state.wins_at_boot() {
        for (path, _) in state.rival_files() {
            println!(
                "{} registers another handler at boot, and files later in the alphabet win: \
                 use --replace, or edit it",
                path.display()
            );
        }
    }
    for name in state.entries.iter().filter(|e| e.name != NAME && e.is_for_x86_64()) {
        let name = &name.name;
        if lasting && Path::new("/var/lib/binfmts").join(name).exists() {
            println!(
                "binfmt-support registers {name} at boot: update-binfmts --disable {name} stops that"
            );
        }
    }
    if lasting && !Path::new("/run/systemd/system").exists() {
        println!(
            "systemd does not run this machine: after a reboot it is systemd-binfmt that registers \
             Demotic; without it see demotic register --print"
        );
    }
}

fn print_rules(entry: &Entry, folder: &str) {
    println!("# systemd-binfmt, as {folder}/{FILE}");
    println!("{}", String::from_utf8_lossy(&entry.to_rule()));
    println!("# binfmt-support");
    println!("{}", entry.to_update_binfmts());
}

fn try_unregister() -> Result<bool, Failure> {
    let table = Table::kernel();
    let state = State::read(&table).map_err(Failure::Read)?;
    let changes = unregister(&state);
    apply(&changes, &table)?;
    if changes.is_empty() {
        println!("nothing to do: Demotic is not registered");
    }
    Ok(true)
}

/// Whether files can be made in a folder, or it itself in the one above.
fn may_write(folder: &str) -> bool {
    let folder = Path::new(folder).ancestors().find(|folder| folder.exists());
    folder.is_some_and(|folder| {
        let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
        // SAFETY: the call reads one string.
        unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
    })
}

#[cfg(test)]
mod tests;
