use super::*;
use crate::binfmt::tests::{demotic, qemu};
use proptest::prelude::*;

impl State {
    /// What the machine is like after a change, as the kernel and the file system would have it.
    fn after(mut self, change: &Change) -> Self {
        match change.clone() {
            Change::Mount => self.mounted = true,
            Change::Unmount => self.mounted = false,
            Change::SwitchAll(on) => self.enabled = on,
            Change::Add(entry) => {
                assert!(self.entry(&entry.name).is_none(), "EEXIST");
                self.entries.insert(0, entry);
            }
            Change::Remove(name) => self.entries.retain(|entry| entry.name != name),
            Change::Switch(name, on) => {
                self.entries.iter_mut().find(|e| e.name == name).expect("ENOENT").enabled = on;
            }
            Change::Write(path, text) => drop(self.files.insert(path, RuleFile::Text(text))),
            Change::Mask(path) => {
                assert_eq!(self.files.insert(path, RuleFile::Mask), None, "EEXIST");
            }
            Change::Delete(path) => drop(self.files.remove(&path).expect("ENOENT")),
            Change::Link(path) => drop(self.links.insert(path, true)),
            Change::Unlink(path) => drop(self.links.remove(&path).expect("ENOENT")),
        }
        self
    }

    fn after_all(self, changes: &[Change]) -> Self {
        changes.iter().fold(self, Self::after)
    }

    /// What systemd-binfmt makes of the files at boot.
    fn rebooted(mut self) -> Self {
        self.files.retain(|path, _| !path.starts_with("/run"));
        (self.mounted, self.enabled) = (true, true);
        let rules: Vec<Entry> = self.effective().iter().flat_map(|(_, f)| f.rules().0).collect();
        self.entries.clear();
        rules.into_iter().for_each(|entry| self.entries.insert(0, entry));
        self
    }
}

const QEMU_FILE: &str = "/usr/lib/binfmt.d/qemu-x86_64.conf";

fn text(entry: &Entry) -> RuleFile {
    RuleFile::Text(String::from_utf8(entry.to_rule()).unwrap() + "\n")
}

/// A machine with qemu's handler, as Debian has it.
fn with_qemu() -> State {
    State {
        mounted: true,
        enabled: true,
        entries: vec![qemu()],
        files: [(QEMU_FILE.into(), text(&qemu()))].into(),
        links: BTreeMap::new(),
    }
}

fn bare() -> State {
    let (files, links) = (BTreeMap::new(), BTreeMap::new());
    State { mounted: false, enabled: true, entries: vec![], files, links }
}

fn wanted(replace: bool) -> Wanted {
    let second_name = Some("/usr/bin/demotic.alias".into());
    Wanted { entry: demotic(), folder: LASTING, replace, stale: false, second_name }
}

#[test]
fn a_bare_machine() {
    let changes = register(&bare(), &wanted(false));
    assert!(matches!(
        changes[..],
        [Change::Mount, Change::Link(_), Change::Add(_), Change::Write(..)]
    ));
    let state = bare().after_all(&changes);
    assert!(state.wins() && state.wins_at_boot());
    let (path, text) = state.own_file().unwrap();
    assert_eq!(path, Path::new("/usr/lib/binfmt.d/demotic.conf"));
    assert!(text.starts_with('#') && text.contains("\n:demotic:M:0:"), "{text}");
    assert_eq!(register(&state, &wanted(false)), []);
    assert_eq!(state.clone().after_all(&unregister(&state)), bare());
}

#[test]
fn the_newest_entry_wins_until_reboot() {
    let state = with_qemu().after_all(&register(&with_qemu(), &wanted(false)));
    assert!(state.wins() && state.entry("qemu-x86_64").unwrap().enabled);
    // demotic.conf comes before qemu-x86_64.conf.
    assert!(!state.wins_at_boot() && !state.clone().rebooted().wins());
    assert_eq!(state.clone().after_all(&unregister(&state)), with_qemu());
}

#[test]
fn replaced_handlers_stay_off_and_come_back() {
    let state = with_qemu().after_all(&register(&with_qemu(), &wanted(true)));
    assert!(state.wins() && !state.entry("qemu-x86_64").unwrap().enabled);
    let rebooted = state.clone().rebooted();
    assert!(state.wins_at_boot() && rebooted.wins());
    assert_eq!(register(&rebooted, &wanted(true)), []);
    assert_eq!(rebooted.clone().after_all(&unregister(&rebooted)).rebooted(), with_qemu());
    assert_eq!(state.clone().after_all(&unregister(&state)), with_qemu());
}

#[test]
fn an_older_entry_of_ours_wins_by_replace() {
    let mut state = with_qemu().after_all(&register(&with_qemu(), &wanted(false)));
    state.entries.reverse();
    assert!(!state.wins());
    assert_eq!(register(&state, &wanted(false)), [], "only on request");
    let state = state.clone().after_all(&register(&state, &wanted(true)));
    assert!(state.wins());
    assert_eq!(register(&state, &wanted(true)), []);
}

#[test]
fn files_that_cannot_be_masked_are_left() {
    // The administrator's own, and one with rules for something else.
    let mut state = with_qemu();
    let file = state.files.remove(Path::new(QEMU_FILE)).unwrap();
    state.files.insert("/etc/binfmt.d/qemu-x86_64.conf".into(), file.clone());
    let RuleFile::Text(mut rules) = file else { unreachable!() };
    rules += ":jar:E::jar::/usr/bin/java:\n";
    state.files.insert("/usr/lib/binfmt.d/many.conf".into(), RuleFile::Text(rules));
    assert_eq!(masks(&state, LASTING), [] as [PathBuf; 0]);
    let until_reboot = masks(&with_qemu(), UNTIL_REBOOT);
    assert_eq!(until_reboot, [Path::new("/run/binfmt.d/qemu-x86_64.conf")]);
}

#[test]
fn another_build_or_place_replaces_the_entry() {
    let state = bare().after_all(&register(&bare(), &wanted(false)));
    let moved = Entry { interpreter: "/opt/demotic".into(), ..demotic() };
    let changes = register(&state, &Wanted { entry: moved.clone(), ..wanted(false) });
    assert!(matches!(changes[..], [Change::Remove(_), Change::Add(_), Change::Write(..)]));
    assert_eq!(state.clone().after_all(&changes).entry(NAME), Some(&moved));
    let changes = register(&state, &Wanted { stale: true, ..wanted(false) });
    assert!(matches!(changes[..], [Change::Remove(_), Change::Add(_)]));
}

#[test]
fn a_second_name_of_another_file_is_made_anew() {
    let wanted = wanted(false);
    let mut state = bare().after_all(&register(&bare(), &wanted));
    let name = wanted.second_name.clone().unwrap();
    state.links.insert(name.clone(), false);
    assert_eq!(register(&state, &wanted), [Change::Link(name)]);
    // Where it cannot be made, nothing is done about it.
    assert_eq!(register(&state, &Wanted { second_name: None, ..wanted }), []);
}

#[test]
fn a_disabled_table_is_turned_on_and_off_again() {
    let off = State { enabled: false, ..with_qemu() };
    let state = off.clone().after_all(&register(&off, &wanted(false)));
    assert!(state.wins());
    assert_eq!(state.clone().after_all(&unregister(&state)), off);
}

#[test]
fn lasting_and_until_reboot() {
    let shortly = Wanted { folder: UNTIL_REBOOT, ..wanted(true) };
    let state = with_qemu().after_all(&register(&with_qemu(), &shortly));
    assert_eq!(register(&state, &shortly), []);
    assert_eq!(State { links: BTreeMap::new(), ..state.clone().rebooted() }, with_qemu());
    let lasting = state.clone().after_all(&register(&state, &wanted(true)));
    assert_eq!(lasting.own_file().unwrap().0, Path::new(LASTING).join(FILE));
    // Asked for less, what lasts stays.
    assert_eq!(register(&lasting, &shortly), []);
}

#[test]
fn nothing_to_undo() {
    assert_eq!(unregister(&with_qemu()), []);
    assert_eq!(unregister(&bare()), []);
}

fn any_state() -> impl Strategy<Value = State> {
    let entry = |name: &'static str| {
        any::<(bool, bool)>().prop_map(move |(there, enabled)| {
            there.then(|| Entry { name: name.into(), enabled, ..qemu() })
        })
    };
    let file = |path: &'static str| {
        any::<bool>().prop_map(move |there| there.then(|| (path.into(), text(&qemu()))))
    };
    let files = [
        file(QEMU_FILE),
        file("/usr/lib/binfmt.d/box64.conf"),
        file("/usr/local/lib/binfmt.d/zz.conf"),
        file("/run/binfmt.d/qemu-x86_64.conf"),
        file("/etc/binfmt.d/rosetta.conf"),
    ];
    let entries = [entry("a"), entry("rosetta"), entry("qemu-x86_64")];
    (any::<(bool, bool)>(), entries, files).prop_map(|((mounted, enabled), entries, files)| State {
        mounted,
        enabled: enabled || !mounted,
        entries: entries.into_iter().flatten().filter(|_| mounted).collect(),
        files: files.into_iter().flatten().collect(),
        links: BTreeMap::new(),
    })
}

proptest! {
    /// Twice is once, and undone is as before.
    #[test]
    fn register_is_idempotent_and_undone(
        before in any_state(),
        replace: bool,
        folder in prop_oneof![Just(LASTING), Just(READ_ONLY_USR), Just(UNTIL_REBOOT)],
    ) {
        let wanted = Wanted { folder, ..wanted(replace) };
        let state = before.clone().after_all(&register(&before, &wanted));
        prop_assert!(state.wins());
        prop_assert_eq!(register(&state, &wanted), []);
        let mut undone = state.clone().after_all(&unregister(&state));
        if before.mounted || !undone.mounted {
            prop_assert_eq!(undone, before);
        } else {
            undone.mounted = false;
            prop_assert_eq!(undone, before);
        }
    }
}
