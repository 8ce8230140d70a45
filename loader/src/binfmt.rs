//! The kernel's table of program formats, binfmt_misc (Documentation/admin-guide/binfmt-misc.rst): what an
//! entry is, in the kernel's words and in a rule's, and which entry an x86_64 program meets first.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the table is mounted.
pub const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";
/// The name of Demotic's entry.
pub const NAME: &str = "demotic";

/// The bytes of a file that the kernel compares (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// ELFCLASS64, ELFDATA2LSB, EV_CURRENT, EI_OSABI 0; EI_ABIVERSION and the padding; ET_EXEC, EM_X86_64.
const MAGIC: [u8; 20] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
/// Also ET_DYN, for position-independent programs; also OSABI 3 (GNU), which is what ifuncs in a static
/// program make it. A native kernel does not look at EI_ABIVERSION and the padding at all, and AppImages
/// have a mark of their own there.
const MASK: [u8; 20] = *b"\xff\xff\xff\xff\xff\xff\xff\xfc\0\0\0\0\0\0\0\0\xfe\xff\xff\xff";

/// What the table compares a file with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Bytes of the file.
    Magic {
        /// Of the first byte compared.
        offset: usize,
        /// The bytes.
        magic: Vec<u8>,
        /// The bits of them that count.
        mask: Vec<u8>,
    },
    /// The end of the file's name, without the dot.
    Extension(String),
}

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, also of its file.
    pub name: String,
    /// Whether the kernel looks at it.
    pub enabled: bool,
    /// Which files it is for.
    pub pattern: Pattern,
    /// The program that runs them.
    pub interpreter: PathBuf,
    /// Letters, in the kernel's order: P, O, C, F.
    pub flags: String,
}

impl Entry {
    /// Demotic's own, for x86_64 programs. Flag P is left out for kernels that do not tell the interpreter
    /// of it (AT_FLAGS_PRESERVE_ARGV0, Linux 5.12).
    pub fn demotic(interpreter: PathBuf, kernel: (u32, u32)) -> Self {
        let flags = if kernel >= (5, 12) { "POCF" } else { "OCF" };
        Self {
            name: NAME.into(),
            enabled: true,
            pattern: Pattern::Magic { offset: 0, magic: MAGIC.to_vec(), mask: MASK.to_vec() },
            interpreter,
            flags: flags.into(),
        }
    }

    /// Reads an entry's file: `enabled`, `interpreter PATH`, `flags: POCF`, then `extension .EXT` or
    /// `offset N`, `magic HEX` and perhaps `mask HEX`. None if it is not of that form.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let pattern = match value("extension .") {
            Some(extension) => Pattern::Extension(extension.into()),
            None => {
                let magic = from_hex(value("magic ")?)?;
                let mask = match value("mask ") {
                    Some(mask) => from_hex(mask)?,
                    None => vec![0xff; magic.len()],
                };
                Pattern::Magic { offset: value("offset ")?.parse().ok()?, magic, mask }
            }
        };
        Some(Self {
            name: name.into(),
            enabled: text.starts_with("enabled"),
            pattern,
            interpreter: value("interpreter ")?.into(),
            flags: value("flags: ").unwrap_or_default().into(),
        })
    }

    /// Reads a rule, as it is written to `register` and stands in files of binfmt.d(5).
    pub fn from_rule(rule: &str) -> Option<Self> {
        let delimiter = rule.chars().next()?;
        let fields: Vec<&str> = rule[delimiter.len_utf8()..].trim_end().split(delimiter).collect();
        let [name, kind, offset, magic, mask, interpreter, ref flags @ ..] = fields[..] else {
            return None;
        };
        let pattern = match kind {
            "E" => Pattern::Extension(magic.into()),
            "M" => {
                let magic = unescape(magic)?;
                let mask = if mask.is_empty() { vec![0xff; magic.len()] } else { unescape(mask)? };
                let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
                Pattern::Magic { offset, magic, mask }
            }
            _ => return None,
        };
        Some(Self {
            name: name.into(),
            enabled: true,
            pattern,
            interpreter: interpreter.into(),
            flags: flags.first().copied().unwrap_or_default().into(),
        })
    }

    /// The rule that makes this entry: `:name:M:offset:magic:mask:interpreter:flags`, with a delimiter
    /// that the path does not have.
    pub fn to_rule(&self) -> Vec<u8> {
        let path = self.interpreter.as_os_str().as_bytes();
        let free = |c: &&u8| !path.contains(*c);
        let delimiter = b":|;,!".iter().find(free).copied().unwrap_or(b'\x01');
        let (kind, offset, magic, mask) = match &self.pattern {
            Pattern::Magic { offset, magic, mask } => {
                ("M", offset.to_string(), escape(magic), escape(mask))
            }
            Pattern::Extension(extension) => ("E", "".into(), extension.clone(), "".into()),
        };
        let fields: [&[u8]; 8] = [
            b"",
            self.name.as_bytes(),
            kind.as_bytes(),
            offset.as_bytes(),
            magic.as_bytes(),
            mask.as_bytes(),
            path,
            self.flags.as_bytes(),
        ];
        fields.join(&delimiter)
    }

    /// The same entry as a call of update-binfmts(8), of Debian's binfmt-support.
    pub fn to_update_binfmts(&self) -> String {
        let Pattern::Magic { offset, magic, mask } = &self.pattern else { return String::new() };
        let yes = |flag| if self.flags.contains(flag) { "yes" } else { "no" };
        format!(
            "update-binfmts --install {} {} --offset {offset} --magic '{}' --mask '{}' \
             --credentials {} --preserve {} --fix-binary {}",
            self.name,
            self.interpreter.display(),
            escape(magic),
            escape(mask),
            yes('C'),
            yes('P'),
            yes('F'),
        )
    }

    /// Whether the kernel would choose this entry for a file, were it enabled and the only one.
    pub fn matches(&self, kind: &Kind) -> bool {
        let Pattern::Magic { offset, magic, mask } = &self.pattern else { return false };
        let head = kind.head();
        let Some(bytes) = head.get(*offset..offset + magic.len()) else { return false };
        bytes.iter().zip(magic).zip(mask).all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }

    /// Whether it is for any kind of x86_64 program.
    pub fn is_for_x86_64(&self) -> bool {
        KINDS.iter().any(|kind| self.matches(kind))
    }
}

/// Bytes as a rule spells them.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// Bytes from a rule: `\xHH` stands for one, anything else for itself.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.strip_prefix(b"x").filter(|_| first == b'\\');
        let (byte, behind) = match escaped {
            Some(hex) => (from_hex(std::str::from_utf8(hex.get(..2)?).ok()?)?[0], &hex[2..]),
            None => (first, tail),
        };
        bytes.push(byte);
        rest = behind;
    }
    Some(bytes)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect()).flatten()
}

/// A kind of x86_64 program, as the table sees it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is.
    pub name: &'static str,
    e_type: u8,
    os_abi: u8,
    padding: [u8; 3],
}

/// The kinds that are met.
pub const KINDS: [Kind; 5] = [
    Kind { name: "static or fixed", e_type: 2, os_abi: 0, padding: [0; 3] },
    Kind { name: "position-independent", e_type: 3, os_abi: 0, padding: [0; 3] },
    Kind { name: "static with ifuncs", e_type: 2, os_abi: 3, padding: [0; 3] },
    Kind { name: "static-PIE with ifuncs", e_type: 3, os_abi: 3, padding: [0; 3] },
    Kind { name: "AppImage", e_type: 2, os_abi: 0, padding: *b"AI\x02" },
];

impl Kind {
    /// The first bytes of such a file.
    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..MAGIC.len()].copy_from_slice(&MAGIC);
        head[7] = self.os_abi;
        head[8..11].copy_from_slice(&self.padding);
        head[16] = self.e_type;
        head
    }
}

/// The entry that the kernel takes: of those enabled, the first that matches.
pub fn chosen<'a>(entries: &'a [Entry], kind: &Kind) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.enabled && entry.matches(kind))
}

/// The table of this machine, or of this user namespace (Linux 6.7).
#[derive(Clone, Debug)]
pub struct Table {
    directory: PathBuf,
}

impl Table {
    /// The kernel's.
    pub fn kernel() -> Self {
        Self { directory: DIRECTORY.into() }
    }

    /// Whether it is mounted.
    pub fn is_mounted(&self) -> bool {
        self.directory.join("register").exists()
    }

    /// Whether the kernel looks at it at all.
    pub fn is_enabled(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.directory.join("status"))?.starts_with("enabled"))
    }

    /// The entries in the order in which the kernel tries them: the newest first, which is also the
    /// order of the directory (bm_register_write adds at the head of both lists).
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            if name == "register" || name == "status" {
                continue;
            }
            let text = fs::read(self.directory.join(&name))?;
            let entry = Entry::parse(&name.to_string_lossy(), &String::from_utf8_lossy(&text));
            entries.extend(entry);
        }
        Ok(entries)
    }

    /// Adds an entry.
    pub fn add(&self, entry: &Entry) -> io::Result<()> {
        self.write("register", &entry.to_rule())
    }

    /// Takes an entry away.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.write(name, b"-1")
    }

    /// Lets the kernel look at an entry, or not.
    pub fn switch(&self, name: &str, on: bool) -> io::Result<()> {
        self.write(name, if on { b"1" } else { b"0" })
    }

    /// Lets the kernel look at the whole table, or not.
    pub fn switch_all(&self, on: bool) -> io::Result<()> {
        self.write("status", if on { b"1" } else { b"0" })
    }

    fn write(&self, file: impl AsRef<OsStr>, text: &[u8]) -> io::Result<()> {
        fs::write(self.directory.join(Path::new(file.as_ref())), text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The file of qemu-user's entry in Debian.
    pub const QEMU: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/x86_64-binfmt-P\nflags: POCF\n\
        offset 0\nmagic 7f454c4602010100000000000000000002003e00\n\
        mask fffffffffffefefcfffffffffffffffffeffffff\n";

    pub fn demotic() -> Entry {
        Entry::demotic("/usr/bin/demotic".into(), (6, 12))
    }

    pub fn qemu() -> Entry {
        Entry::parse("qemu-x86_64", QEMU).unwrap()
    }

    #[test]
    fn the_entry_is_for_every_kind_of_program() {
        assert!(KINDS.iter().all(|kind| demotic().matches(kind)));
        let mut other = KINDS[0];
        other.os_abi = 9; // FreeBSD
        assert!(!demotic().matches(&other));
        other = KINDS[0];
        other.e_type = 1; // ET_REL
        assert!(!demotic().matches(&other));
        other.e_type = 4; // ET_CORE
        assert!(!demotic().matches(&other));
    }

    #[test]
    fn other_machines_and_classes_are_not_matched() {
        let Pattern::Magic { magic, mask, .. } = demotic().pattern else { unreachable!() };
        for (at, byte) in [(4, 1), (5, 2), (18, 3), (18, 183), (19, 1)] {
            assert_ne!((magic[at] ^ byte) & mask[at], 0, "byte {at} = {byte}");
        }
    }

    #[test]
    fn entries_as_the_kernel_shows_them() {
        let entry = qemu();
        assert!(entry.enabled && entry.flags == "POCF");
        assert_eq!(entry.interpreter, Path::new("/usr/libexec/qemu-binfmt/x86_64-binfmt-P"));
        let matched: Vec<bool> = KINDS.iter().map(|kind| entry.matches(kind)).collect();
        assert_eq!(matched, [true, true, true, true, false]);
        let jar = "disabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n";
        let jar = Entry::parse("jar", jar).unwrap();
        assert_eq!(jar.pattern, Pattern::Extension("jar".into()));
        assert!(!jar.enabled && !jar.is_for_x86_64());
        assert_eq!(Entry::parse("odd", "enabled\n"), None);
    }

    #[test]
    fn the_newest_enabled_entry_is_chosen() {
        let mut entries = [qemu(), demotic()];
        let name = |entries: &[Entry], kind| chosen(entries, kind).map(|entry| entry.name.clone());
        assert_eq!(name(&entries, &KINDS[0]).unwrap(), "qemu-x86_64");
        assert_eq!(name(&entries, &KINDS[4]).unwrap(), "demotic");
        entries[0].enabled = false;
        assert_eq!(name(&entries, &KINDS[0]).unwrap(), "demotic");
        assert_eq!(name(&entries[..1], &KINDS[0]), None);
    }

    #[test]
    fn the_rule_is_the_kernels() {
        let rule = String::from_utf8(demotic().to_rule()).unwrap();
        assert_eq!(
            rule,
            r":demotic:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00".to_owned()
                + r":\xff\xff\xff\xff\xff\xff\xff\xfc\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff:/usr/bin/demotic:POCF"
        );
        let before_p = Entry::demotic("/usr/bin/demotic".into(), (5, 10));
        assert!(before_p.to_rule().ends_with(b":OCF"));
    }

    #[test]
    fn rules_of_others() {
        let rule = r":qemu-x86_64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00:\xff\xff\xff\xff\xff\xfe\xfe\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/libexec/qemu-binfmt/x86_64-binfmt-P:POCF";
        assert_eq!(Entry::from_rule(rule), Some(qemu()));
        assert_eq!(Entry::from_rule(",jar,E,,jar,,/usr/bin/java,\n").unwrap().name, "jar");
        for broken in ["", ":", ":a:M::\\x7:", ":a:M:x:a::/b:", ":a:X::a::/b:"] {
            assert_eq!(Entry::from_rule(broken), None, "{broken}");
        }
    }

    #[test]
    fn update_binfmts_gets_the_same() {
        let command = demotic().to_update_binfmts();
        assert!(command.starts_with("update-binfmts --install demotic /usr/bin/demotic "));
        assert!(command.ends_with("--credentials yes --preserve yes --fix-binary yes"));
    }

    proptest! {
        #[test]
        fn rules_say_all_of_an_entry(
            path in "/[a-z:/|,]{1,20}",
            offset in 0usize..64,
            magic in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..32),
            flags in "P?O?C?F?",
        ) {
            let (magic, mask) = magic.into_iter().unzip();
            let entry = Entry {
                name: "name".into(),
                enabled: true,
                pattern: Pattern::Magic { offset, magic, mask },
                interpreter: path.into(),
                flags,
            };
            let rule = String::from_utf8(entry.to_rule()).unwrap();
            prop_assert_eq!(Entry::from_rule(&rule), Some(entry));
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,80}") {
            let _ = (Entry::from_rule(&text), Entry::parse("x", &text));
        }
    }
}
