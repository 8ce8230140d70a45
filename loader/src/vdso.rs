//! The vDSO the guest sees; `build/vdso.rs` writes it.

/// The image: one guest page, to be mapped readable and executable.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::Elf;
    use goblin::elf::dynamic::{DT_VERDEF, DT_VERDEFNUM, DT_VERSYM};
    use goblin::elf::sym::{STB_GLOBAL, STB_WEAK};
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    const FUNCTIONS: [&str; 6] =
        ["clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres", "getrandom"];

    fn words(at: u64) -> impl Iterator<Item = u32> {
        IMAGE[at as usize..].as_chunks().0.iter().map(|&c| u32::from_le_bytes(c))
    }

    fn disassembly(start: u64, size: u64) -> String {
        let code = &IMAGE[start as usize..][..size as usize];
        let mut formatter = NasmFormatter::new();
        let mut text = String::new();
        for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter() {
            formatter.format(&instruction, &mut text);
            text.push(';');
        }
        text
    }

    fn value(elf: &Elf, name: &str) -> (u64, u64, u8) {
        let sym = elf.dynsyms.iter().find(|s| elf.dynstrtab.get_at(s.st_name) == Some(name));
        let sym = sym.unwrap_or_else(|| panic!("{name} is not exported"));
        (sym.st_value, sym.st_size, sym.st_bind())
    }

    #[test]
    fn is_one_page() {
        assert_eq!(IMAGE.len() as u64, crate::elf::PAGE);
    }

    #[test]
    fn exports_each_function_under_both_names() {
        let elf = Elf::parse(IMAGE).unwrap();
        assert_eq!(elf.soname, Some("linux-vdso.so.1"));
        for name in FUNCTIONS {
            let (address, size, bind) = value(&elf, &format!("__vdso_{name}"));
            assert_eq!(bind, STB_GLOBAL);
            assert_eq!(value(&elf, name), (address, size, STB_WEAK));
        }
    }

    #[test]
    fn functions_make_their_system_call() {
        let elf = Elf::parse(IMAGE).unwrap();
        let numbers = ["0E4h", "60h", "0C9h", "135h", "0E5h"];
        for (name, number) in FUNCTIONS.iter().zip(numbers) {
            let (address, size, _) = value(&elf, name);
            assert_eq!(disassembly(address, size), format!("mov eax,{number};syscall;ret;"));
        }
        let (address, size, _) = value(&elf, "getrandom");
        let query = address + 14;
        assert_eq!(
            disassembly(address, size).to_lowercase(),
            format!(
                "cmp r8,0ffffffffffffffffh;je short {query:016x}h;mov eax,13eh;syscall;ret;\
                 mov rax,0ffffffffffffffdah;ret;"
            )
        );
    }

    #[test]
    fn every_symbol_has_version_linux_2_6() {
        let elf = Elf::parse(IMAGE).unwrap();
        let tag = |tag| elf.dynamic.as_ref().unwrap().dyns.iter().find(|d| d.d_tag == tag);
        let at = |kind| tag(kind).unwrap().d_val;
        assert_eq!(at(DT_VERDEFNUM), 2);
        // The second Elf64_Verdef: vd_version and vd_flags, vd_ndx and vd_cnt, vd_hash, vd_aux, vd_next.
        let base: Vec<u32> = words(at(DT_VERDEF)).take(5).collect();
        let place = at(DT_VERDEF) + u64::from(base[4]);
        let second: Vec<u32> = words(place).take(5).collect();
        assert_eq!(second[..3], [1, 1 << 16 | 2, 0x3ae_75f6]); // the hash Go and glibc compare with
        let name = words(place + u64::from(second[3])).next().unwrap();
        assert_eq!(elf.dynstrtab.get_at(name as usize), Some("LINUX_2.6"));
        let versions = &IMAGE[at(DT_VERSYM) as usize..][2..2 * elf.dynsyms.len()];
        assert!(versions.chunks(2).all(|v| v == [2, 0]));
    }

    /// The look-up of the gABI, as Go's run time does it without DT_GNU_HASH.
    #[test]
    fn sysv_hash_table_finds_every_symbol() {
        let elf = Elf::parse(IMAGE).unwrap();
        let table: Vec<u32> =
            words(elf.dynamic.as_ref().unwrap().info.hash.unwrap()).take(64).collect();
        assert_eq!((table[0], table[1] as usize), (1, elf.dynsyms.len()));
        let mut seen = vec![];
        let mut index = table[2];
        while index != 0 {
            seen.push(index as usize);
            index = table[3 + index as usize];
        }
        assert_eq!(seen, (1..elf.dynsyms.len()).collect::<Vec<_>>());
    }

    #[test]
    fn gnu_hash_table_finds_every_symbol() {
        let elf = Elf::parse(IMAGE).unwrap();
        let at = elf.dynamic.as_ref().unwrap().info.gnu_hash.unwrap();
        let table: Vec<u32> = words(at).take(64).collect();
        let (buckets, first, words, shift) = (table[0], table[1], table[2], table[3]);
        assert_eq!((buckets, first, words), (1, 1, 1));
        let bloom = u64::from(table[4]) | u64::from(table[5]) << 32;
        let chain = &table[7..][..elf.dynsyms.len() - 1];
        for (i, symbol) in elf.dynsyms.iter().skip(1).enumerate() {
            let name = elf.dynstrtab.get_at(symbol.st_name).unwrap();
            let hash = name.bytes().fold(5381u32, |h, b| h.wrapping_mul(33).wrapping_add(b.into()));
            assert_ne!(bloom & 1 << (hash % 64), 0, "{name}");
            assert_ne!(bloom & 1 << ((hash >> shift) % 64), 0, "{name}");
            assert_eq!(chain[i] | 1, hash | 1, "{name}");
            assert_eq!(chain[i] & 1 == 1, i + 1 == chain.len(), "{name}");
        }
    }

    /// The C library's dynamic linker loads it, finds its functions by version, and they work.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn works_in_a_real_process() {
        use std::ffi::CString;
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(IMAGE).unwrap();
        let path = CString::new(file.path().to_str().unwrap()).unwrap();
        // SAFETY: the path is null-terminated; loading runs no code of the image.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        let function = |name: &str| {
            let name = CString::new(name).unwrap();
            // SAFETY: a live handle and null-terminated strings.
            let address = unsafe { libc::dlvsym(library, name.as_ptr(), c"LINUX_2.6".as_ptr()) };
            assert!(!address.is_null(), "{name:?}");
            address
        };
        type GetRandom = extern "C" fn(*mut u8, usize, u32, *mut u8, usize) -> isize;
        type GetCpu = extern "C" fn(*mut u32, *mut u32, usize) -> i32;
        type ClockGetTime = extern "C" fn(i32, *mut libc::timespec) -> i32;
        // SAFETY: vdso(7) and lib/vdso/getrandom.c give these functions these signatures.
        let (get_random, get_cpu, clock_gettime) = unsafe {
            (
                std::mem::transmute::<*mut libc::c_void, GetRandom>(function("getrandom")),
                std::mem::transmute::<*mut libc::c_void, GetCpu>(function("__vdso_getcpu")),
                std::mem::transmute::<*mut libc::c_void, ClockGetTime>(function("clock_gettime")),
            )
        };
        let mut bytes = [0u8; 64];
        let query = get_random(std::ptr::null_mut(), 0, 0, bytes.as_mut_ptr(), usize::MAX);
        assert_eq!(query, -libc::ENOSYS as isize);
        assert_eq!(get_random(bytes.as_mut_ptr(), 64, 0, std::ptr::null_mut(), 0), 64);
        assert_ne!(bytes, [0; 64]);
        let mut cpu = u32::MAX;
        assert_eq!(get_cpu(&mut cpu, std::ptr::null_mut(), 0), 0);
        assert_ne!(cpu, u32::MAX);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(clock_gettime(libc::CLOCK_REALTIME, &mut time), 0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        assert!((now - time.tv_sec).abs() < 60);
    }
}
