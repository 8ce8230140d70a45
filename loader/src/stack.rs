//! The initial stack of a program (x86-64 psABI 3.4.1; Linux' create_elf_tables).

use std::ops::Range;

/// Auxiliary vector entry types (getauxval(3), uapi/linux/auxvec.h).
#[allow(missing_docs)] // the names are the kernel's
pub mod at {
    pub const NULL: u64 = 0;
    pub const EXECFD: u64 = 2;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// What goes on the stack.
pub struct Contents<'a> {
    /// Arguments, argv\[0\] first.
    pub argv: &'a [&'a [u8]],
    /// Environment, each `NAME=value`.
    pub envp: &'a [&'a [u8]],
    /// The path given to execve.
    pub execfn: &'a [u8],
    /// Sixteen random bytes for the C library.
    pub random: [u8; 16],
    /// The auxiliary vector without the entries that point into the stack.
    pub auxv: &'a [(u64, u64)],
}

/// A stack ready to be copied to guest memory.
pub struct InitialStack {
    /// Everything from `sp` to the top.
    pub bytes: Vec<u8>,
    /// The initial rsp, a multiple of 16.
    pub sp: u64,
    /// Where the argument strings are.
    pub argv: Range<u64>,
    /// Where the environment strings are.
    pub envp: Range<u64>,
    /// The auxiliary vector as it is on the stack.
    pub auxv: Vec<u8>,
}

/// Lays out the stack below `top`, which is a multiple of 16.
pub fn build(top: u64, contents: &Contents) -> InitialStack {
    // From the top down as Linux has it: a null word, the path, the environment, the arguments.
    let size = |strings: &[&[u8]]| strings.iter().map(|s| s.len() as u64 + 1).sum::<u64>();
    let execfn = top - 8 - size(&[contents.execfn]);
    let envp = execfn - size(contents.envp)..execfn;
    let argv = envp.start - size(contents.argv)..envp.start;
    let platform = (argv.start & !15) - 16;
    let random = platform - 16;

    let tail =
        [(at::RANDOM, random), (at::EXECFN, execfn), (at::PLATFORM, platform), (at::NULL, 0)];
    let auxv: Vec<u8> = contents
        .auxv
        .iter()
        .chain(&tail)
        .flat_map(|&(kind, value)| [kind, value])
        .flat_map(u64::to_le_bytes)
        .collect();
    let words = 1 + contents.argv.len() as u64 + 1 + contents.envp.len() as u64 + 1;
    let sp = (random - auxv.len() as u64 - words * 8) & !15;

    let mut bytes = Vec::with_capacity((top - sp) as usize);
    let word = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    word(&mut bytes, contents.argv.len() as u64);
    for (strings, range) in [(contents.argv, &argv), (contents.envp, &envp)] {
        let mut address = range.start;
        for string in strings {
            word(&mut bytes, address);
            address += string.len() as u64 + 1;
        }
        word(&mut bytes, 0);
    }
    bytes.extend_from_slice(&auxv);
    let pad_to = |bytes: &mut Vec<u8>, address: u64| bytes.resize((address - sp) as usize, 0);
    pad_to(&mut bytes, random);
    bytes.extend_from_slice(&contents.random);
    bytes.extend_from_slice(b"x86_64");
    pad_to(&mut bytes, argv.start);
    for string in contents.argv.iter().chain(contents.envp).chain([&contents.execfn]) {
        bytes.extend_from_slice(string);
        bytes.push(0);
    }
    pad_to(&mut bytes, top);
    InitialStack { bytes, sp, argv, envp, auxv }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOP: u64 = 0x7fff_ffff_f000;

    impl InitialStack {
        fn word(&self, address: u64) -> u64 {
            let at = (address - self.sp) as usize;
            u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
        }

        fn string(&self, address: u64) -> &[u8] {
            self.bytes[(address - self.sp) as usize..].split(|&b| b == 0).next().unwrap()
        }

        /// Reads a null-terminated array of string pointers; gives the strings and what follows.
        fn strings(&self, mut address: u64) -> (Vec<&[u8]>, u64) {
            let mut strings = vec![];
            while self.word(address) != 0 {
                strings.push(self.string(self.word(address)));
                address += 8;
            }
            (strings, address + 8)
        }

        fn auxv(&self, mut address: u64) -> Vec<(u64, u64)> {
            let mut entries = vec![];
            while self.word(address) != at::NULL {
                entries.push((self.word(address), self.word(address + 8)));
                address += 16;
            }
            entries
        }
    }

    fn string() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1u8.., 0..20)
    }

    proptest! {
        /// What the program reads back is what was given.
        #[test]
        fn reads_back(
            argv in proptest::collection::vec(string(), 0..5),
            envp in proptest::collection::vec(string(), 0..5),
            execfn in string(),
            random: [u8; 16],
        ) {
            let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            let envp: Vec<&[u8]> = envp.iter().map(Vec::as_slice).collect();
            let given = [(at::PAGESZ, 4096), (at::BASE, 0)];
            let stack = build(
                TOP,
                &Contents { argv: &argv, envp: &envp, execfn: &execfn, random, auxv: &given },
            );
            prop_assert_eq!(stack.sp % 16, 0);
            prop_assert_eq!(stack.sp + stack.bytes.len() as u64, TOP);
            prop_assert_eq!(stack.word(TOP - 8), 0);
            prop_assert_eq!(stack.word(stack.sp), argv.len() as u64);
            let (read_argv, next) = stack.strings(stack.sp + 8);
            prop_assert_eq!(read_argv, argv);
            let (read_envp, next) = stack.strings(next);
            prop_assert_eq!(read_envp, envp);
            let auxv = stack.auxv(next);
            prop_assert_eq!(&auxv[..2], &given);
            let get = |kind| auxv.iter().find(|e| e.0 == kind).unwrap().1;
            prop_assert_eq!(stack.string(get(at::EXECFN)), &execfn);
            prop_assert_eq!(stack.string(get(at::PLATFORM)), b"x86_64");
            let random_at = (get(at::RANDOM) - stack.sp) as usize;
            prop_assert_eq!(&stack.bytes[random_at..random_at + 16], &random);
            let auxv_at = (next - stack.sp) as usize;
            prop_assert_eq!(&stack.bytes[auxv_at..][..stack.auxv.len()], &stack.auxv);
        }
    }

    /// /proc/PID/cmdline and environ are these ranges.
    #[test]
    fn string_areas_are_contiguous() {
        let stack = build(
            TOP,
            &Contents {
                argv: &[b"a", b"bc"],
                envp: &[b"X=1"],
                execfn: b"/a",
                random: [0; 16],
                auxv: &[],
            },
        );
        let area = |r: &Range<u64>| {
            &stack.bytes[(r.start - stack.sp) as usize..(r.end - stack.sp) as usize]
        };
        assert_eq!(area(&stack.argv), b"a\0bc\0");
        assert_eq!(area(&stack.envp), b"X=1\0");
        assert_eq!(stack.argv.end, stack.envp.start);
    }
}
