//! Writes the guest's vDSO: an x86_64 shared object of one page, as the kernel's own
//! (vdso(7); arch/x86/entry/vdso in Linux). Its functions make the system call: in translated code
//! that costs no more than anything else they could do to reach the host's clock.

use crate::elf::{EHDR_SIZE, ET_DYN, Image, PHDR_SIZE, file_header, program_header};

/// `mov eax, number; syscall; ret`
const fn system_call(number: u8, high: u8) -> [u8; 8] {
    [0xb8, number, high, 0, 0, 0x0f, 0x05, 0xc3]
}

/// getrandom(buffer, len, flags, opaque_state, opaque_len): with opaque_len = -1 the caller asks for
/// the size of its state (Linux 6.11, lib/vdso/getrandom.c); -ENOSYS sends it to the system call.
const GETRANDOM: [u8; 22] = [
    0x49, 0x83, 0xf8, 0xff, // cmp r8, -1
    0x74, 0x08, // je query
    0xb8, 0x3e, 0x01, 0x00, 0x00, // mov eax, 318
    0x0f, 0x05, // syscall
    0xc3, // ret
    0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, // query: mov rax, -38
    0xc3, // ret
];

/// The exported functions, each also under its name without the prefix, weakly.
const FUNCTIONS: [(&str, &[u8]); 6] = [
    ("__vdso_clock_gettime", &system_call(228, 0)),
    ("__vdso_gettimeofday", &system_call(96, 0)),
    ("__vdso_time", &system_call(201, 0)),
    ("__vdso_getcpu", &system_call(0x35, 1)),
    ("__vdso_clock_getres", &system_call(229, 0)),
    ("__vdso_getrandom", &GETRANDOM),
];
const PREFIX: &str = "__vdso_";
const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

const PAGE: usize = 4096;
/// Segments: PT_LOAD, PT_DYNAMIC, PT_GNU_EH_FRAME.
const PHDR_COUNT: usize = 3;
const TEXT_ALIGN: usize = 16;
/// Any index but SHN_UNDEF and SHN_ABS: there is no section table.
const TEXT_SECTION: u16 = 1;

/// A symbol of the dynamic symbol table.
struct Symbol {
    name: String,
    weak: bool,
    value: u64,
    size: u64,
}

/// The whole image, padded to a page.
pub fn image() -> Vec<u8> {
    let mut out = Image(vec![0; EHDR_SIZE + PHDR_COUNT * PHDR_SIZE]);
    let (text, symbols) = text(&mut out);
    let text_end = out.0.len();
    let strings = out.begin(1);
    let names: Vec<&str> =
        symbols.iter().map(|s| s.name.as_str()).chain([SONAME, VERSION]).collect();
    let name_offsets = string_table(&mut out, &names);
    let strings_size = out.0.len() - strings;
    let (soname, version) = (name_offsets[symbols.len()], name_offsets[symbols.len() + 1]);

    let symbol_table = out.begin(8);
    dynamic_symbols(&mut out, &symbols, &name_offsets);
    let hash = sysv_hash_table(&mut out, &symbols);
    let gnu_hash = gnu_hash_table(&mut out, &symbols);
    let versions = out.begin(2);
    out.u16s(&[0]);
    symbols.iter().for_each(|_| out.u16s(&[2]));
    let version_definitions = version_definitions(&mut out, soname, version);
    let (eh_frame_hdr, eh_frame_hdr_size) = unwind_tables(&mut out, text, text_end);

    let dynamic = out.begin(8);
    out.u64s(&[14, soname.into()]); // DT_SONAME
    out.u64s(&[4, hash as u64]); // DT_HASH
    out.u64s(&[0x6fff_fef5, gnu_hash as u64]); // DT_GNU_HASH
    out.u64s(&[5, strings as u64]); // DT_STRTAB
    out.u64s(&[10, strings_size as u64]); // DT_STRSZ
    out.u64s(&[6, symbol_table as u64]); // DT_SYMTAB
    out.u64s(&[11, 24]); // DT_SYMENT
    out.u64s(&[0x6fff_fff0, versions as u64]); // DT_VERSYM
    out.u64s(&[0x6fff_fffc, version_definitions as u64]); // DT_VERDEF
    out.u64s(&[0x6fff_fffd, 2]); // DT_VERDEFNUM
    out.u64s(&[0, 0]); // DT_NULL
    let end = out.0.len();
    assert!(end <= PAGE, "the vDSO must fit one page");

    let mut headers = Image(Vec::new());
    file_header(&mut headers, ET_DYN, 0, PHDR_COUNT);
    program_header(&mut headers, [1, 5], 0, 0..end, PAGE); // PT_LOAD, PF_R | PF_X
    program_header(&mut headers, [2, 4], 0, dynamic..end, 8); // PT_DYNAMIC, PF_R
    let eh_frame_hdr_end = eh_frame_hdr + eh_frame_hdr_size;
    // PT_GNU_EH_FRAME
    program_header(&mut headers, [0x6474_e550, 4], 0, eh_frame_hdr..eh_frame_hdr_end, 4);
    out.0[..headers.0.len()].copy_from_slice(&headers.0);
    out.begin(PAGE);
    out.0
}

/// Writes the functions; gives where they begin and both names of each.
fn text(out: &mut Image) -> (usize, Vec<Symbol>) {
    let start = out.begin(TEXT_ALIGN);
    let mut symbols = Vec::new();
    for (name, code) in FUNCTIONS {
        let value = out.begin(TEXT_ALIGN) as u64;
        out.bytes(code);
        let size = code.len() as u64;
        symbols.push(Symbol { name: name.into(), weak: false, value, size });
        let plain = name.strip_prefix(PREFIX).expect("every function has the prefix");
        symbols.push(Symbol { name: plain.into(), weak: true, value, size });
    }
    (start, symbols)
}

/// Writes a string table and gives the offset of each string in it.
fn string_table(out: &mut Image, names: &[&str]) -> Vec<u32> {
    let start = out.0.len();
    out.bytes(&[0]);
    let place = |name: &&str| {
        let offset = (out.0.len() - start) as u32;
        out.bytes(name.as_bytes());
        out.bytes(&[0]);
        offset
    };
    names.iter().map(place).collect()
}

/// Elf64_Sym: name, info, other, section, value, size; the first is empty.
fn dynamic_symbols(out: &mut Image, symbols: &[Symbol], names: &[u32]) {
    const STT_FUNC: u8 = 2;
    const STB_GLOBAL: u8 = 1;
    const STB_WEAK: u8 = 2;
    out.bytes(&[0; 24]);
    for (symbol, &name) in symbols.iter().zip(names) {
        let binding = if symbol.weak { STB_WEAK } else { STB_GLOBAL };
        out.u32s(&[name]);
        out.bytes(&[binding << 4 | STT_FUNC, 0]);
        out.u16s(&[TEXT_SECTION]);
        out.u64s(&[symbol.value, symbol.size]);
    }
}

/// DT_HASH (gABI chapter 5, "Hash Table") with one bucket that chains all symbols.
fn sysv_hash_table(out: &mut Image, symbols: &[Symbol]) -> usize {
    let start = out.begin(4);
    let count = symbols.len() as u32 + 1;
    out.u32s(&[1, count, 1, 0]); // nbucket, nchain, bucket[0], chain[0]
    (1..count).for_each(|i| out.u32s(&[(i + 1) % count]));
    start
}

/// The hash of the gABI.
fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |h, b| {
        let h = (h << 4).wrapping_add(b.into());
        (h ^ h >> 28 << 4) & 0x0fff_ffff
    })
}

/// DT_GNU_HASH with one bucket and one word of Bloom filter.
fn gnu_hash_table(out: &mut Image, symbols: &[Symbol]) -> usize {
    const SHIFT: u32 = 6;
    let start = out.begin(8);
    let hash =
        |s: &Symbol| s.name.bytes().fold(5381u32, |h, b| h.wrapping_mul(33).wrapping_add(b.into()));
    let hashes: Vec<u32> = symbols.iter().map(hash).collect();
    let bloom = hashes.iter().fold(0u64, |w, h| w | 1 << (h % 64) | 1 << ((h >> SHIFT) % 64));
    out.u32s(&[1, 1, 1, SHIFT]); // nbuckets, first symbol, words of the filter, its shift
    out.u64s(&[bloom]);
    out.u32s(&[1]); // the bucket
    let (last, others) = hashes.split_last().expect("there are symbols");
    others.iter().for_each(|h| out.u32s(&[h & !1]));
    out.u32s(&[last | 1]);
    start
}

/// DT_VERDEF: the base version, which is the object's name, and the version of all symbols.
fn version_definitions(out: &mut Image, soname: u32, version: u32) -> usize {
    let start = out.begin(4);
    for (flags, index, name, text, next) in
        [(1u16, 1u16, soname, SONAME, 28u32), (0, 2, version, VERSION, 0)]
    {
        out.u16s(&[1, flags, index, 1]); // vd_version, vd_flags, vd_ndx, vd_cnt
        out.u32s(&[sysv_hash(text), 20, next]); // vd_hash, vd_aux, vd_next
        out.u32s(&[name, 0]); // vda_name, vda_next
    }
    start
}

/// .eh_frame and .eh_frame_hdr (LSB 5.0, "Exception Frames"): nothing is ever pushed, so one
/// entry with the frame at rsp + 8 covers everything. Gives the place and size of the header.
fn unwind_tables(out: &mut Image, text: usize, text_end: usize) -> (usize, usize) {
    let relative = |to: usize, from: usize| (to as u32).wrapping_sub(from as u32);
    let cie = out.begin(8);
    out.u32s(&[20, 0]); // length, CIE id
    out.bytes(&[1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b]); // factors 1 and -8, return address in column 16, pcrel sdata4
    out.bytes(&[0x0c, 7, 8, 0x90, 1, 0, 0]); // DW_CFA_def_cfa rsp, 8; DW_CFA_offset 16, 1; nops
    let fde = out.0.len();
    out.u32s(&[16, relative(fde + 4, cie), relative(text, fde + 8), relative(text_end, text)]);
    out.u32s(&[0]); // no augmentation data; nops
    out.u32s(&[0]); // terminator

    let header = out.begin(4);
    out.bytes(&[1, 0x1b, 0x03, 0x3b]); // version; pcrel sdata4, udata4, datarel sdata4
    out.u32s(&[relative(cie, header + 4), 1, relative(text, header), relative(fde, header)]);
    (header, out.0.len() - header)
}
