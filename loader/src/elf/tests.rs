use super::*;
use crate::error::{STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND};
use proptest::prelude::*;

/// A PT_LOAD program header, or another after [`Phdr::of_type`].
#[derive(Clone, Copy, Debug)]
struct Phdr {
    p_type: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

const TEXT: Phdr = Phdr {
    p_type: PT_LOAD,
    flags: PF_R | PF_X,
    offset: 0,
    vaddr: 0x40_0000,
    filesz: 0x1234,
    memsz: 0x1234,
    align: 0x1000,
};
const DATA: Phdr = Phdr {
    flags: PF_R | PF_W,
    offset: 0x1e10,
    vaddr: 0x40_2e10,
    filesz: 0x200,
    memsz: 0x2400,
    ..TEXT
};

impl Phdr {
    fn of_type(p_type: u32, offset: u64, size: u64) -> Self {
        Self { p_type, flags: PF_R, offset, vaddr: 0, filesz: size, memsz: size, align: 1 }
    }
}

/// Offset of everything in [`file`] that is not a header.
const CONTENTS: u64 = 0x400;

/// A file of 0x3000 bytes with these program headers behind the ELF header.
fn file(e_type: u16, phdrs: &[Phdr]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(e_type.to_le_bytes());
    bytes.extend(EM_X86_64.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    for word in [0x40_1000u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [64u16, 56, phdrs.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for p in phdrs {
        bytes.extend(p.p_type.to_le_bytes());
        bytes.extend(p.flags.to_le_bytes());
        for word in [p.offset, p.vaddr, p.vaddr, p.filesz, p.memsz, p.align] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.resize(0x3000, 0);
    bytes
}

fn plan_of(e_type: u16, phdrs: &[Phdr]) -> Result<LoadPlan, LoadError> {
    plan(file(e_type, phdrs).as_slice())
}

/// The message for a file that must be refused.
fn refusal(bytes: &[u8]) -> String {
    let error = plan(bytes).expect_err("the file must be refused");
    assert_eq!(error.status(), STATUS_CANNOT_EXECUTE);
    error.to_string()
}

fn refusal_of(phdrs: &[Phdr]) -> String {
    refusal(&file(ET_EXEC, phdrs))
}

const RW: u32 = (libc::PROT_READ | libc::PROT_WRITE) as u32;
const RX: u32 = (libc::PROT_READ | libc::PROT_EXEC) as u32;

#[test]
fn static_program() {
    let plan = plan_of(ET_EXEC, &[TEXT, DATA]).unwrap();
    assert!(!plan.relocatable && !plan.executable_stack && plan.interpreter.is_none());
    assert_eq!((plan.span.clone(), plan.entry), (0x40_0000..0x40_6000, 0x40_1000));
    assert_eq!((plan.brk, plan.align, plan.isa_needed), (0x40_5210, PAGE, 0));
    assert_eq!(
        plan.steps,
        [
            Step::File { addr: 0x40_0000, len: 0x1234, offset: 0, prot: RX },
            Step::File { addr: 0x40_2000, len: 0x1010, offset: 0x1000, prot: RW },
            Step::Zero { addr: 0x40_3010, len: 0xff0, prot: RW },
            Step::Anonymous { addr: 0x40_4000, len: 0x2000, prot: RW },
        ]
    );
}

#[test]
fn program_headers_are_found_without_pt_phdr() {
    assert_eq!(plan_of(ET_EXEC, &[TEXT]).unwrap().phdr, Some(0x40_0040));
    // No segment covers the table.
    let text = Phdr { offset: 0x1000, ..TEXT };
    assert_eq!(plan_of(ET_EXEC, &[text]).unwrap().phdr, None);
}

/// The shape of UPX's output: the file mapped twice, the first time with a long bss.
#[test]
fn packed_program() {
    let bss = Phdr { flags: PF_R | PF_W, filesz: 0x1000, memsz: 0x8_0000, ..TEXT };
    let packed = Phdr { vaddr: 0x48_0000, filesz: 0x3000, memsz: 0x3000, ..TEXT };
    let plan = plan_of(ET_EXEC, &[bss, packed]).unwrap();
    assert_eq!(
        plan.steps,
        [
            Step::File { addr: 0x40_0000, len: 0x1000, offset: 0, prot: RW },
            Step::Anonymous { addr: 0x40_1000, len: 0x7_f000, prot: RW },
            Step::File { addr: 0x48_0000, len: 0x3000, offset: 0, prot: RX },
        ]
    );
    assert_eq!(plan.phdr, Some(0x48_0040));
}

#[test]
fn bss_within_one_page_zeroes_the_rest_of_it() {
    let data = Phdr { memsz: 0x1020, ..DATA };
    let plan = plan_of(ET_EXEC, &[data]).unwrap();
    assert_eq!(plan.steps[1..], [Step::Zero { addr: 0x40_3010, len: 0xff0, prot: RW }]);
}

#[test]
fn bss_without_file_bytes_is_anonymous() {
    let bss = Phdr { filesz: 0, offset: 0x77, vaddr: 0x50_0123, memsz: 0x1000, ..DATA };
    let plan = plan_of(ET_EXEC, &[TEXT, bss]).unwrap();
    assert_eq!(plan.steps[1..], [Step::Anonymous { addr: 0x50_0000, len: 0x2000, prot: RW }]);
}

/// The bytes of the earlier segment stay, and the rest of its page becomes zero.
#[test]
fn bss_in_the_last_page_of_another_segment() {
    let bss = Phdr { filesz: 0, vaddr: 0x40_1800, memsz: 0x1000, ..DATA };
    let plan = plan_of(ET_EXEC, &[TEXT, bss]).unwrap();
    assert_eq!(
        plan.steps[1..],
        [
            Step::Zero { addr: 0x40_1800, len: 0x800, prot: RW },
            Step::Anonymous { addr: 0x40_2000, len: 0x1000, prot: RW },
        ]
    );
}

#[test]
fn position_independent_program_with_interpreter() {
    let interp = Phdr::of_type(PT_INTERP, CONTENTS, 9);
    let mut bytes = file(ET_DYN, &[interp, Phdr { vaddr: 0, align: 0x20_0000, ..TEXT }]);
    bytes[CONTENTS as usize..][..9].copy_from_slice(b"/lib/ld\0\0");
    let plan = plan(bytes.as_slice()).unwrap();
    assert!(plan.relocatable);
    assert_eq!(plan.interpreter, Some("/lib/ld".into()));
    assert_eq!((plan.span, plan.align, plan.phdr), (0..0x2000, 0x20_0000, Some(64)));
}

#[test]
fn executable_stack_only_when_asked_for() {
    let stack = |flags| Phdr { flags, ..Phdr::of_type(PT_GNU_STACK, 0, 0) };
    assert!(plan_of(ET_EXEC, &[TEXT, stack(PF_R | PF_W | PF_X)]).unwrap().executable_stack);
    assert!(!plan_of(ET_EXEC, &[TEXT, stack(PF_R | PF_W)]).unwrap().executable_stack);
}

#[test]
fn odd_alignments() {
    let aligned = |align| plan_of(ET_DYN, &[Phdr { align, ..TEXT }]);
    assert_eq!(aligned(0).unwrap().align, PAGE);
    assert_eq!(aligned(0x3000).unwrap().align, PAGE);
    assert_eq!(aligned(1 << 30).unwrap().align, 1 << 30);
    assert!(aligned(1 << 47).is_err());
}

/// A property note with an unknown property before the one that counts.
fn property_note(isa: u32) -> Vec<u8> {
    let words =
        [4, 32, 5, u32::from_le_bytes(*b"GNU\0"), 0xc000_0002, 4, 3, 0, 0xc000_8002, 4, isa, 0];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn with_property_note(note: &[u8], size: u64) -> LoadPlan {
    let mut bytes = file(ET_EXEC, &[TEXT, Phdr::of_type(PT_GNU_PROPERTY, CONTENTS, size)]);
    bytes[CONTENTS as usize..][..note.len()].copy_from_slice(note);
    plan(bytes.as_slice()).unwrap()
}

#[test]
fn isa_needed_is_read_from_the_property_note() {
    let note = property_note(0b111);
    assert_eq!(with_property_note(&note, note.len() as u64).isa_needed, 0b111);
}

#[test]
fn a_property_note_that_makes_no_sense_asks_for_nothing() {
    let note = property_note(0b111);
    for size in 0..40 {
        assert_eq!(with_property_note(&note, size).isa_needed, 0, "cut at {size}");
    }
    let endless =
        [[4, u32::MAX, 5, 0, 1, u32::MAX].map(u32::to_le_bytes).as_flattened(), &note].concat();
    assert_eq!(with_property_note(&endless, u64::MAX).isa_needed, 0);
}

#[test]
fn files_that_are_something_else() {
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = file(ET_EXEC, &[TEXT]);
        bytes[at..at + value.len()].copy_from_slice(value);
        refusal(&bytes)
    };
    assert!(refusal(b"").contains("not an ELF file"));
    assert!(refusal(b"#!/bin/sh\n").contains("is a script"));
    assert!(refusal(b"\x7fEL").contains("not an ELF file"));
    assert!(refusal(b"\x7fELF\x02\x01").contains("cut short"));
    assert!(patched(18, &EM_386.to_le_bytes()).contains("32-bit x86"));
    assert!(patched(18, &183u16.to_le_bytes()).contains("AARCH64"));
    assert!(patched(4, &[1]).contains("x32"));
    assert!(patched(4, &[7]).contains("class or byte order"));
    assert!(patched(16, &1u16.to_le_bytes()).contains("type REL"));
    assert!(patched(16, &4u16.to_le_bytes()).contains("type CORE"));
    assert!(patched(54, &32u16.to_le_bytes()).contains("unknown size"));
    assert!(patched(56, &0u16.to_le_bytes()).contains("no program headers"));
    assert!(patched(56, &74u16.to_le_bytes()).contains("too many"));
    assert!(patched(32, &u64::MAX.to_le_bytes()).contains("wraps"));
    assert!(patched(32, &0x2fffu64.to_le_bytes()).contains("cut short"));
}

#[test]
fn segments_that_cannot_be() {
    assert!(refusal_of(&[Phdr::of_type(PT_GNU_STACK, 0, 0)]).contains("nothing to load"));
    assert!(refusal_of(&[Phdr { memsz: 0x1233, ..TEXT }]).contains("larger in the file"));
    assert!(refusal_of(&[Phdr { memsz: u64::MAX, ..TEXT }]).contains("outside"));
    assert!(refusal_of(&[Phdr { vaddr: ADDRESS_END - PAGE, ..TEXT }]).contains("outside"));
    assert!(refusal_of(&[Phdr { offset: 1, ..TEXT }]).contains("disagree"));
    assert!(refusal_of(&[Phdr { offset: !0xfff, ..TEXT }]).contains("wraps"));
    assert!(refusal_of(&[Phdr { offset: 0x2000, ..TEXT }]).contains("cut short"));
    assert!(refusal_of(&[TEXT, Phdr { vaddr: 0x40_1e10, ..DATA }, TEXT]).contains("overlap"));
}

#[test]
fn interpreter_paths_that_cannot_be() {
    let with = |offset, size| refusal_of(&[TEXT, Phdr::of_type(PT_INTERP, offset, size)]);
    assert!(with(CONTENTS, 1).contains("impossible length"));
    assert!(with(CONTENTS, PATH_MAX + 1).contains("impossible length"));
    assert!(with(u64::MAX, 9).contains("behind its end"));
    assert!(with(0x2fff, 9).contains("behind its end"));
    assert!(with(0, 4).contains("does not end"));
}

/// What execve(2) says, whatever is wrong with the segments: they are looked at when it can no longer fail.
#[test]
fn errors_of_an_interpreters_path() {
    let errno = |offset, size| {
        let bytes =
            file(ET_EXEC, &[Phdr { memsz: 0, ..TEXT }, Phdr::of_type(PT_INTERP, offset, size)]);
        plan(&*bytes).unwrap_err().errno()
    };
    assert_eq!(errno(CONTENTS, 1), libc::ENOEXEC);
    assert_eq!(errno(CONTENTS, PATH_MAX + 1), libc::ENOEXEC);
    assert_eq!(errno(0x2fff, 2), libc::EIO);
    assert_eq!(errno(1 << 40, 2), libc::EIO);
    assert_eq!(errno(i64::MAX as u64, 2), libc::EINVAL);
    assert_eq!(errno(u64::MAX, 2), libc::EINVAL);
    assert_eq!(errno(0, 4), libc::ENOEXEC);
}

#[test]
fn exit_statuses() {
    let open = |kind| LoadError::Open(io::Error::from(kind)).status();
    assert_eq!(open(io::ErrorKind::NotFound), STATUS_NOT_FOUND);
    assert_eq!(open(io::ErrorKind::PermissionDenied), STATUS_CANNOT_EXECUTE);
    assert_eq!(LoadError::NoInterpreter("/x".into()).status(), STATUS_NOT_FOUND);
}

/// Numbers that are likely to be at a limit.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x4000u64,
        (0..64u32, -2i64..3).prop_map(|(bit, d)| (1u64 << bit).wrapping_add_signed(d)),
        (0..0x10u64).prop_map(|page| 0x40_0000 + page * 0x800),
    ]
}

fn phdr() -> impl Strategy<Value = Phdr> {
    let p_type = prop_oneof![
        4 => Just(PT_LOAD),
        1 => Just(PT_INTERP),
        1 => Just(PT_GNU_STACK),
        1 => Just(PT_GNU_PROPERTY),
    ];
    (p_type, 0..8u32, number(), number(), number(), number(), number()).prop_map(
        |(p_type, flags, offset, vaddr, filesz, memsz, align)| Phdr {
            p_type,
            flags,
            offset,
            vaddr,
            filesz,
            memsz,
            align,
        },
    )
}

/// Segments that are right but for the numbers proptest bends.
fn plausible_phdr() -> impl Strategy<Value = Phdr> {
    (0..6u64, 0..0x1000u64, 0..0x1800u64, 0..0x2000u64, 0..8u32).prop_map(
        |(page, in_page, filesz, bss, flags)| Phdr {
            flags,
            offset: in_page,
            vaddr: 0x40_0000 + page * PAGE + in_page,
            filesz,
            memsz: filesz + bss,
            ..TEXT
        },
    )
}

/// What the mapping step relies on.
fn check(plan: &LoadPlan, file_len: u64) -> Result<(), TestCaseError> {
    prop_assert!(plan.align.is_power_of_two() && plan.align >= PAGE);
    prop_assert_eq!((plan.span.start % PAGE, plan.span.end % PAGE), (0, 0));
    prop_assert!(plan.span.start < plan.span.end && plan.span.end <= ADDRESS_END);
    prop_assert!(plan.span.contains(&(plan.brk - 1)));
    let mut mapped = std::collections::HashSet::new();
    for step in &plan.steps {
        let (addr, len) = match *step {
            Step::File { addr, len, offset, .. } => {
                prop_assert_eq!((addr % PAGE, offset % PAGE), (0, 0));
                prop_assert!(len > 0 && offset + len <= file_len);
                (addr, len)
            }
            Step::Anonymous { addr, len, .. } => {
                prop_assert_eq!((addr % PAGE, len % PAGE), (0, 0));
                (addr, len)
            }
            Step::Zero { addr, len, .. } => {
                prop_assert_eq!(page_down(addr), page_down(addr + len - 1));
                prop_assert!(mapped.contains(&page_down(addr)), "zeroes a page that is not there");
                continue;
            }
        };
        prop_assert!(len > 0 && plan.span.start <= addr && addr + len <= plan.span.end);
        if len < 1 << 20 {
            mapped.extend((addr..addr + len).step_by(PAGE as usize));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the headers say, the plan can be carried out or the file is refused.
    #[test]
    fn any_program_headers(
        phdrs in proptest::collection::vec(prop_oneof![phdr(), plausible_phdr()], 0..5),
        dynamic: bool,
    ) {
        let bytes = file(if dynamic { ET_DYN } else { ET_EXEC }, &phdrs);
        if let Ok(plan) = plan(bytes.as_slice()) {
            check(&plan, bytes.len() as u64)?;
        }
    }

    /// The same for a good file with bytes of its headers changed, or cut.
    #[test]
    fn mutated_headers(
        changes in proptest::collection::vec((0..0x200usize, any::<u8>()), 0..8),
        len in prop_oneof![Just(0x3000usize), 0..0x3000usize],
    ) {
        let stack = Phdr::of_type(PT_GNU_STACK, 0, 0);
        let interp = Phdr::of_type(PT_INTERP, 0x3f8, 8);
        let mut bytes = file(ET_DYN, &[TEXT, DATA, stack, interp]);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(len);
        if let Ok(plan) = plan(bytes.as_slice()) {
            check(&plan, len as u64)?;
        }
    }

    /// The segments of a plan give each byte the value the gABI says: from the file, or zero.
    #[test]
    fn memory_is_file_then_zeros(
        phdrs in proptest::collection::vec(plausible_phdr(), 1..3),
        seed: u8,
    ) {
        let mut bytes = file(ET_EXEC, &phdrs);
        for (i, byte) in bytes[CONTENTS as usize..].iter_mut().enumerate() {
            *byte = (i as u8).wrapping_mul(31).wrapping_add(seed) | 1;
        }
        let Ok(plan) = plan(bytes.as_slice()) else { return Ok(()) };
        check(&plan, bytes.len() as u64)?;
        let memory = carry_out(&plan, &bytes);
        // Pages of two segments belong to the later one, so only the last is certain.
        let last = phdrs.iter().rfind(|p| p.memsz > 0).unwrap();
        for i in 0..last.memsz {
            let at = (last.vaddr + i - plan.span.start) as usize;
            let expected = if i < last.filesz { bytes[(last.offset + i) as usize] } else { 0 };
            prop_assert_eq!(memory[at], expected, "byte {:#x}", i);
        }
    }
}

/// Memory after a plan, from `plan.span.start` on.
fn carry_out(plan: &LoadPlan, file: &[u8]) -> Vec<u8> {
    let mut memory = vec![0xaa; (plan.span.end - plan.span.start) as usize];
    for step in &plan.steps {
        match *step {
            Step::File { addr, len, offset, .. } => {
                let pages = page_up(len) as usize;
                let mut bytes: Vec<u8> =
                    file[offset as usize..].iter().copied().take(pages).collect();
                bytes.resize(pages, 0);
                memory[(addr - plan.span.start) as usize..][..pages].copy_from_slice(&bytes);
            }
            Step::Anonymous { addr, len, .. } | Step::Zero { addr, len, .. } => {
                memory[(addr - plan.span.start) as usize..][..len as usize].fill(0);
            }
        }
    }
    memory
}
