//! CPUID: the processor that guests see (Intel SDM vol. 2, CPUID).
//!
//! Feature bits are not written down twice: each names the instruction forms that stand for the
//! feature, and is set if the instruction table implements them all, and the host has what they need.

use crate::engine::HostFeatures;
use crate::helpers::Pair;
use crate::lower::table::supports;
use crate::state::CpuState;
use crate::state::reg::{RAX, RBX, RCX, RDX};
use iced_x86::Code::{self, *};
use std::sync::OnceLock;

/// XCR0: x87 and SSE state.
pub const XCR0: u64 = 3;

/// The vendor. Programs that look at it take "GenuineIntel" for what the family and model say.
const VENDOR: &[u8; 12] = b"GenuineIntel";
/// The processor brand string.
const BRAND: &[u8; 48] = b"Demotic x86_64 translator\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Family 6, model 0x9e, stepping 10 in the layout of leaf 1's EAX.
const SIGNATURE: u32 = 0x0009_06ea;
/// The highest basic leaf.
const MAX_LEAF: u32 = 0x16;
/// The highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Virtual and physical address bits.
const ADDRESS_BITS: u32 = 48 << 8 | 39;

/// A register of a leaf that holds feature bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Leaf1Ecx,
    Leaf1Edx,
    Leaf7Ebx,
    Extended1Ecx,
    Extended1Edx,
}
use Word::*;

/// Feature bits with the forms that a processor with the feature has.
const FEATURES: &[(Word, u32, &[Code])] = &[
    (Leaf1Edx, 0, &[Fld_m64fp, Fsqrt, Fpatan]), // FPU
    (Leaf1Edx, 4, &[Rdtsc]),                    // TSC
    (Leaf1Edx, 8, &[Cmpxchg8b_m64]),            // CX8
    (Leaf1Edx, 11, &[Syscall]),                 // SEP
    (Leaf1Edx, 15, &[Cmovb_r32_rm32]),          // CMOV
    (Leaf1Edx, 19, &[Clflush_m8]),              // CLFSH
    (Leaf1Edx, 23, &[Paddb_mm_mmm64, Emms]),    // MMX
    (Leaf1Edx, 24, &[Fxsave_m512byte, Fxrstor_m512byte]), // FXSR
    (Leaf1Edx, 25, &[Addps_xmm_xmmm128, Ldmxcsr_m32, Sfence]), // SSE
    (Leaf1Edx, 26, &[Addpd_xmm_xmmm128, Paddq_xmm_xmmm128, Mfence]), // SSE2
    (Leaf1Ecx, 0, &[Haddps_xmm_xmmm128, Addsubpd_xmm_xmmm128, Movddup_xmm_xmmm64]), // SSE3
    (Leaf1Ecx, 1, &[Pclmulqdq_xmm_xmmm128_imm8]), // PCLMULQDQ
    (Leaf1Ecx, 9, &[Pshufb_xmm_xmmm128, Palignr_xmm_xmmm128_imm8, Pabsd_xmm_xmmm128]), // SSSE3
    (Leaf1Ecx, 12, &[VEX_Vfmadd231ps_xmm_xmm_xmmm128, VEX_Vfmadd132pd_ymm_ymm_ymmm256]), // FMA
    (Leaf1Ecx, 13, &[Cmpxchg16b_m128]),         // CMPXCHG16B
    (Leaf1Ecx, 19, &[Pmulld_xmm_xmmm128, Ptest_xmm_xmmm128, Roundsd_xmm_xmmm64_imm8]), // SSE4.1
    (Leaf1Ecx, 20, &[Pcmpistri_xmm_xmmm128_imm8, Pcmpgtq_xmm_xmmm128, Crc32_r32_rm8]), // SSE4.2
    (Leaf1Ecx, 22, &[Movbe_r32_m32]),           // MOVBE
    (Leaf1Ecx, 23, &[Popcnt_r32_rm32]),         // POPCNT
    (Leaf1Ecx, 25, &[Aesenc_xmm_xmmm128, Aeskeygenassist_xmm_xmmm128_imm8]), // AES
    (Leaf1Ecx, 26, &[Xsave_mem, Xrstor_mem, Xgetbv]), // XSAVE
    (Leaf1Ecx, 27, &[Xsave_mem, Xrstor_mem, Xgetbv]), // OSXSAVE
    (Leaf1Ecx, 28, &[VEX_Vaddps_ymm_ymm_ymmm256, VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, Xsave_mem]), // AVX
    (Leaf1Ecx, 30, &[Rdrand_r32]), // RDRAND
    (Leaf7Ebx, 0, &[Rdfsbase_r64, Wrfsbase_r64, Rdgsbase_r64, Wrgsbase_r64]), // FSGSBASE
    (Leaf7Ebx, 3, &[VEX_Andn_r32_r32_rm32, VEX_Bextr_r32_rm32_r32, Tzcnt_r32_rm32]), // BMI1
    (Leaf7Ebx, 5, &[VEX_Vpaddb_ymm_ymm_ymmm256, VEX_Vpgatherdd_ymm_vm32y_ymm]), // AVX2
    (Leaf7Ebx, 8, &[VEX_Pdep_r32_r32_rm32, VEX_Mulx_r32_r32_rm32, VEX_Bzhi_r32_rm32_r32]), // BMI2
    (Leaf7Ebx, 18, &[Rdseed_r32]), // RDSEED
    (Leaf7Ebx, 19, &[Adcx_r32_rm32, Adox_r32_rm32]), // ADX
    (Leaf7Ebx, 23, &[Clflushopt_m8]), // CLFLUSHOPT
    (Leaf7Ebx, 29, &[Sha256rnds2_xmm_xmmm128, Sha1rnds4_xmm_xmmm128_imm8]), // SHA
    (Extended1Ecx, 0, &[Lahf, Sahf]), // LAHF in 64-bit mode
    (Extended1Ecx, 5, &[Lzcnt_r32_rm32]), // LZCNT
    (Extended1Ecx, 8, &[Prefetchw_m8]), // PREFETCHW
    (Extended1Edx, 11, &[Syscall]), // SYSCALL
    (Extended1Edx, 27, &[Rdtscp]), // RDTSCP
];

/// Bits that have no instructions of their own: PSE, PAE, PGE, PAT, APIC and the like, which
/// every 64-bit processor has.
const FIXED: &[(Word, u32)] = &[
    (Leaf1Edx, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 12 | 1 << 13),
    (Leaf1Edx, 1 << 14 | 1 << 16 | 1 << 17 | 1 << 28),
    // A hypervisor is present: nobody looks for the model's errata.
    (Leaf1Ecx, 1 << 31),
    // REP MOVSB and STOSB are fast.
    (Leaf7Ebx, 1 << 9),
    // NX, long mode.
    (Extended1Edx, 1 << 20 | 1 << 29),
];

type Has = fn(&HostFeatures) -> bool;

/// Features whose instructions need the host's own, or are far slower without.
const BY_HOST: &[(Word, u32, Has)] = &[
    (Leaf1Ecx, 1, |host| host.pmull),
    (Leaf1Ecx, 25, |host| host.aes),
    (Leaf7Ebx, 29, |host| host.sha1 && host.sha2),
];

static HOST: OnceLock<HostFeatures> = OnceLock::new();

/// Says what the host has, once for the process and before any guest asks.
pub fn on_host(host: HostFeatures) {
    HOST.get_or_init(|| host);
}

fn host_has(w: Word, bit: u32) -> bool {
    let host = HOST.get().copied().unwrap_or_default();
    BY_HOST.iter().all(|(word, b, has)| (*word, *b) != (w, bit) || has(&host))
}

fn word(w: Word) -> u32 {
    let from_table = FEATURES
        .iter()
        .filter(|(word, bit, _)| *word == w && host_has(w, *bit))
        .filter(|(.., forms)| forms.iter().all(|&c| supports(c)))
        .fold(0, |bits, (_, bit, _)| bits | 1 << bit);
    FIXED.iter().filter(|(word, _)| *word == w).fold(from_table, |bits, (_, fixed)| bits | fixed)
}

/// The processor's feature bits, as [`cpuid`] gives them.
struct Features {
    leaf1: [u32; 2],
    leaf7: u32,
    extended1: [u32; 2],
}

fn features() -> &'static Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    FEATURES.get_or_init(|| Features {
        leaf1: [word(Leaf1Ecx), word(Leaf1Edx)],
        leaf7: word(Leaf7Ebx),
        extended1: [word(Extended1Ecx), word(Extended1Edx)],
    })
}

/// EDX of leaf 1: what Linux hands to programs as AT_HWCAP.
pub fn hwcap() -> u64 {
    // Needed before the host is known: nothing in it depends on that.
    u64::from(word(Leaf1Edx))
}

/// Number of the processor that the thread runs on.
fn current_cpu() -> u32 {
    // SAFETY: has no arguments; -1 if the kernel cannot tell.
    unsafe { libc::sched_getcpu() }.max(0) as u32
}

/// Helper: the number of the processor, for RDTSCP.
pub extern "C" fn current(_: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    Pair(u64::from(current_cpu()), 0)
}

fn cpu_count() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    // SAFETY: reads a system constant.
    *COUNT.get_or_init(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }.clamp(1, 255) as u32)
}

fn text(bytes: &[u8]) -> [u32; 4] {
    std::array::from_fn(|i| {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes.iter().skip(4 * i)) {
            *to = *from;
        }
        u32::from_le_bytes(word)
    })
}

/// EAX EBX ECX EDX of a leaf.
pub fn leaf(leaf: u32, subleaf: u32) -> [u32; 4] {
    let f = features();
    match leaf {
        0 => {
            let [b, d, c, _] = text(VENDOR);
            [MAX_LEAF, b, c, d]
        }
        1 => {
            let ebx = current_cpu() << 24 | cpu_count() << 16 | 8 << 8;
            [SIGNATURE, ebx, f.leaf1[0], f.leaf1[1]]
        }
        // No descriptors: leaf 4 tells the caches.
        2 => [0x00ff_ff01, 0, 0, 0],
        4 => cache(subleaf),
        7 if subleaf == 0 => [0, f.leaf7, 0, 0],
        0xb => topology(subleaf),
        0xd if f.leaf1[0] & 1 << 26 != 0 => match subleaf {
            // 512 bytes of legacy area and the header.
            0 => [XCR0 as u32, 576, 576, 0],
            _ => [0; 4],
        },
        // The time-stamp counter's rate is not told: programs measure it.
        0x15 | 0x16 => [0; 4],
        0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
        0x8000_0001 => [0, 0, f.extended1[0], f.extended1[1]],
        0x8000_0002..=0x8000_0004 => text(&BRAND[16 * (leaf - 0x8000_0002) as usize..]),
        // L2: 64-byte lines, 8 ways, 1024 KiB.
        0x8000_0006 => [0, 0, 1024 << 16 | 6 << 12 | 64, 0],
        // The time-stamp counter is invariant.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        0x8000_0008 => [ADDRESS_BITS, 0, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 4: the caches, one per subleaf.
fn cache(subleaf: u32) -> [u32; 4] {
    // type (1 data, 2 instructions, 3 unified), level, ways, sets
    let (kind, level, ways, sets) = match subleaf {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 16, 1024),
        3 => (3, 3, 16, 8192),
        _ => return [0; 4],
    };
    let shared = if level == 3 { cpu_count() - 1 } else { 0 };
    let cores = (cpu_count() - 1).min(63);
    let eax = kind | level << 5 | 1 << 8 | shared << 14 | cores << 26;
    [eax, 63 | (ways - 1) << 22, sets - 1, 0]
}

/// Leaf 0xb: one thread per core, all cores in one package.
fn topology(subleaf: u32) -> [u32; 4] {
    let bits = u32::BITS - (cpu_count() - 1).leading_zeros();
    let (shift, count, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (bits, cpu_count(), 2),
        _ => (0, 0, 0),
    };
    [shift, count, kind << 8 | subleaf, current_cpu()]
}

/// Helper: CPUID.
pub extern "C" fn cpuid(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    let mut number = cpu.gpr[RAX] as u32;
    // Beyond the highest leaf Intel's processors give the highest basic one.
    if number > MAX_EXTENDED || (number > MAX_LEAF && number < 0x4000_0000) {
        number = MAX_LEAF;
    }
    let values = leaf(number, cpu.gpr[RCX] as u32);
    for (r, v) in [RAX, RBX, RCX, RDX].into_iter().zip(values) {
        cpu.gpr[r] = u64::from(v);
    }
    Pair(0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(eax: u64, ecx: u64) -> [u64; 4] {
        let mut cpu = CpuState::new();
        cpu.gpr[RAX] = eax;
        cpu.gpr[RCX] = ecx;
        cpuid(&mut cpu, 0, 0, 0);
        [RAX, RBX, RCX, RDX].map(|r| cpu.gpr[r])
    }

    #[test]
    fn the_vendor_reads_as_programs_read_it() {
        let [_, b, c, d] = ask(0, 0);
        let name: Vec<u8> = [b, d, c].iter().flat_map(|v| (*v as u32).to_le_bytes()).collect();
        assert_eq!(name, VENDOR);
    }

    #[test]
    fn the_brand_spans_three_leaves() {
        let bytes: Vec<u8> = (0x8000_0002..=0x8000_0004u64)
            .flat_map(|leaf| ask(leaf, 0))
            .flat_map(|v| (v as u32).to_le_bytes())
            .collect();
        assert_eq!(bytes, BRAND);
    }

    #[test]
    fn features_follow_the_table() {
        let [_, _, c, d] = ask(1, 0);
        assert_ne!(d & 1 << 15, 0, "CMOV");
        assert_ne!(d & 1 << 8, 0, "CMPXCHG8B");
        assert_ne!(c & 1 << 23, 0, "POPCNT");
        assert_eq!(c & 1 << 30, 0, "RDRAND is not implemented");
        assert_eq!(c & 1 << 25, 0, "AES needs the host's");
    }
}
