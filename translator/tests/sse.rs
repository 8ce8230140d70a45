//! SSE on the host, with and without its optional instruction sets: NaNs, rounding, exception flags.
//! (arm64 only: translated code must execute. Whole forms are compared with a real processor elsewhere.)
#![cfg(target_arch = "aarch64")]

use iced_x86::code_asm::*;
use translator::engine::{Config, Engine, Exit, GuestMemory, HostFeatures};
use translator::state::{CpuState, MXCSR_DEFAULT};

/// Everything is executable.
struct Open;

impl GuestMemory for Open {
    fn executable_from(&self, _addr: u64) -> u64 {
        4096
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

/// Whether the host has FEAT_AFP. An emulator may have it without announcing it in HWCAP2.
fn has_afp(caps: u64) -> bool {
    const CPUID: u64 = 1 << 11;
    if caps & CPUID == 0 {
        return false;
    }
    let mmfr1: u64;
    // SAFETY: HWCAP says that ID registers may be read.
    unsafe { std::arch::asm!("mrs {}, ID_AA64MMFR1_EL1", out(reg) mmfr1) };
    mmfr1 >> 44 & 15 != 0
}

/// What this host has of what SSE can use, by HWCAP and HWCAP2 of asm/hwcap.h.
fn features() -> Vec<HostFeatures> {
    // SAFETY: reads the auxiliary vector.
    let (caps, caps2) =
        unsafe { (libc::getauxval(libc::AT_HWCAP), libc::getauxval(libc::AT_HWCAP2)) };
    let baseline = HostFeatures::default();
    let all = HostFeatures {
        flagm: caps & 1 << 27 != 0,
        flagm2: caps2 & 1 << 7 != 0,
        frint: caps2 & 1 << 8 != 0,
        afp: has_afp(caps),
        ..baseline
    };
    vec![baseline, all, HostFeatures { afp: false, ..all }]
}

/// Runs code up to its `syscall` (or fault) from given vector registers.
fn run(
    host: HostFeatures,
    xmm: &[u128],
    build: impl Fn(&mut CodeAssembler),
) -> (Exit, Box<CpuState>) {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    build(&mut a);
    a.syscall().expect("encodable");
    let code: &'static mut [u8] = Box::leak(vec![0u8; 65536].into_boxed_slice());
    let base = code.as_ptr() as u64;
    let bytes = a.assemble(base).expect("assembles");
    code[..bytes.len()].copy_from_slice(&bytes);
    let config = Config {
        host,
        cache_size: 16 << 20,
        dump_asm: std::env::var_os("DUMP").is_some(),
        flags_live_at_return: true,
        ..Config::default()
    };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    let mut cpu = CpuState::new();
    engine.attach(&mut cpu).expect("memory");
    cpu.rip = base;
    cpu.gpr[4] = (base + 60000) & !15;
    cpu.xmm[..xmm.len()].copy_from_slice(xmm);
    let exit = engine.run(&mut cpu);
    engine.detach(&mut cpu);
    (exit, cpu)
}

/// The same on each set of host features, with a check of the state behind it.
fn each(xmm: &[u128], build: impl Fn(&mut CodeAssembler), check: impl Fn(&CpuState)) {
    for host in features() {
        let (exit, cpu) = run(host, xmm, &build);
        assert_eq!(exit, Exit::Syscall, "{host:?}");
        check(&cpu);
    }
}

const QUIET: u64 = 0x7ff8_0000_0000_0001;
const SIGNALLING: u64 = 0xfff0_0000_0000_0002;
const DEFAULT: u64 = 0xfff8_0000_0000_0000;

fn pair(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

#[test]
fn nans_are_those_of_x86() {
    let inf = f64::INFINITY.to_bits();
    let one = 1f64.to_bits();
    // First and second operand, sum.
    for (a, b, sum) in [
        (QUIET, SIGNALLING, QUIET),
        (SIGNALLING, QUIET, SIGNALLING | 1 << 51),
        (one, SIGNALLING, SIGNALLING | 1 << 51),
        (QUIET, one, QUIET),
        (inf, inf | 1 << 63, DEFAULT),
        (one, one, 2f64.to_bits()),
    ] {
        let start = [pair(a, 7), pair(b, 8), pair(one, a), pair(one, b)];
        each(
            &start,
            |a| {
                a.addsd(xmm0, xmm1).unwrap();
                a.addpd(xmm2, xmm3).unwrap();
            },
            |cpu| {
                assert_eq!(cpu.xmm[0], pair(sum, 7));
                assert_eq!(cpu.xmm[2], pair(2f64.to_bits(), sum));
            },
        );
    }
}

#[test]
fn a_dot_product_with_memory_keeps_its_nan() {
    let lanes = |lanes: [u32; 4]| lanes.iter().rfold(0, |v, &lane| v << 32 | u128::from(lane));
    let one = 1f32.to_bits();
    const QUIET: u32 = 0x7fc1_2345;
    for (odd, sum) in [(one, 4f32.to_bits()), (QUIET, QUIET)] {
        for at in 0..4 {
            let mut first = [one; 4];
            first[at] = odd;
            each(
                &[lanes(first), lanes([one; 4])],
                |a| {
                    a.movups(xmmword_ptr(rsp), xmm1).unwrap();
                    a.dpps(xmm0, xmmword_ptr(rsp), 0xff).unwrap();
                },
                |cpu| assert_eq!(cpu.xmm[0], lanes([sum; 4]), "lane {at}"),
            );
        }
    }
}

#[test]
fn a_nan_does_not_disturb_live_flags() {
    each(
        &[pair(QUIET, 0), pair(SIGNALLING, 0)],
        |a| {
            a.mov(eax, 1u32).unwrap();
            a.cmp(eax, 2).unwrap();
            a.addsd(xmm0, xmm1).unwrap();
            a.cvttsd2si(r10d, xmm0).unwrap();
            a.setb(al).unwrap();
        },
        |cpu| {
            assert_eq!(cpu.gpr[0] & 0xff, 1);
            assert_eq!(cpu.gpr[10], 0x8000_0000);
            assert_eq!(cpu.xmm[0], QUIET.into());
        },
    );
}

#[test]
fn the_root_of_a_negative_number_is_the_default_nan() {
    each(
        &[pair((-4f64).to_bits(), 5), pair(9f64.to_bits(), 6)],
        |a| {
            a.sqrtsd(xmm2, xmm0).unwrap();
            a.sqrtsd(xmm3, xmm1).unwrap();
        },
        |cpu| {
            assert_eq!(cpu.xmm[2], DEFAULT.into());
            assert_eq!(cpu.xmm[3], 3f64.to_bits().into());
            assert_eq!(cpu.mxcsr, MXCSR_DEFAULT | 1);
        },
    );
}

#[test]
fn mxcsr_rounds_and_collects_flags() {
    each(
        &[2.5f64.to_bits().into(), (-2.5f64).to_bits().into()],
        |a| {
            a.cvtsd2si(eax, xmm0).unwrap();
            a.cvtsd2si(r10d, xmm1).unwrap();
            a.push(0x3f80).unwrap(); // down
            a.ldmxcsr(ptr(rsp)).unwrap();
            a.cvtsd2si(edx, xmm0).unwrap();
            a.cvtsd2si(ebx, xmm1).unwrap();
            a.stmxcsr(ptr(rsp)).unwrap();
            a.pop(rsi).unwrap();
            a.push(0x5f80).unwrap(); // up
            a.ldmxcsr(ptr(rsp)).unwrap();
            a.stmxcsr(ptr(rsp)).unwrap();
            a.pop(rdi).unwrap();
            a.cvtsd2si(r8d, xmm0).unwrap();
            a.cvtsd2si(r9d, xmm1).unwrap();
        },
        |cpu| {
            let g = |i: usize| cpu.gpr[i] as i32;
            assert_eq!((g(0), g(10)), (2, -2));
            assert_eq!((g(2), g(3)), (2, -3));
            assert_eq!((g(8), g(9)), (3, -2));
            assert_eq!(cpu.gpr[6], 0x3fa0); // PE
            assert_eq!(cpu.gpr[7], 0x5f80);
        },
    );
}

#[test]
fn reserved_bits_of_mxcsr_fault() {
    let load = |value: i32| {
        let (exit, cpu) = run(HostFeatures::default(), &[], |a| {
            a.push(value).unwrap();
            a.ldmxcsr(ptr(rsp)).unwrap();
        });
        (exit, cpu.mxcsr)
    };
    assert_eq!(load(0xffff), (Exit::Syscall, 0xffff));
    assert_eq!(load(0x1_1f80), (Exit::Exception(13), MXCSR_DEFAULT));
}

#[test]
fn what_does_not_fit_is_indefinite() {
    let big = 3e9f64.to_bits();
    let fits = (-2147483648.9f64).to_bits();
    each(
        &[pair(big, fits), pair(fits, 0), pair(1e19f64.to_bits(), 0)],
        |a| {
            a.cvttsd2si(eax, xmm0).unwrap();
            a.cvttsd2si(r10d, xmm1).unwrap();
            a.cvttsd2si(rdx, xmm2).unwrap();
            a.cvttsd2si(rbx, xmm0).unwrap();
            a.cvttpd2dq(xmm3, xmm0).unwrap();
        },
        |cpu| {
            assert_eq!(cpu.gpr[0], 0x8000_0000);
            assert_eq!(cpu.gpr[10], 0x8000_0000);
            assert_eq!(cpu.gpr[2], 1 << 63);
            assert_eq!(cpu.gpr[3], 3_000_000_000);
            assert_eq!(cpu.xmm[3], 0x8000_0000_8000_0000);
            assert_eq!(cpu.mxcsr, MXCSR_DEFAULT | 0x21);
        },
    );
}

#[test]
fn minimum_takes_the_second_of_equals() {
    let zeros = [pair(0, 1 << 63), pair(1 << 63, 0), pair(QUIET, 1), pair(3, SIGNALLING)];
    each(
        &zeros,
        |a| {
            a.minpd(xmm0, xmm1).unwrap();
            a.maxpd(xmm2, xmm3).unwrap();
        },
        |cpu| {
            assert_eq!(cpu.xmm[0], pair(1 << 63, 0));
            assert_eq!(cpu.xmm[2], pair(3, SIGNALLING));
        },
    );
}

/// Rounds of SHA-256 in the shapes that are lowered differently: alone, in pairs, in pairs that follow each other, and
/// with something between that a pair must not go over.
fn sha256_shapes() -> Vec<fn(&mut CodeAssembler)> {
    fn pair(a: &mut CodeAssembler) {
        a.sha256rnds2(xmm2, xmm1).unwrap();
        a.pshufd(xmm0, xmm0, 0xe).unwrap();
        a.paddd(xmm4, xmm3).unwrap();
        a.sha256rnds2(xmm1, xmm2).unwrap();
    }
    vec![
        |a| a.sha256rnds2(xmm2, xmm1).unwrap(),
        pair,
        |a| {
            pair(a);
            a.movdqa(xmm0, xmm4).unwrap();
            a.sha256msg1(xmm5, xmm4).unwrap();
            a.sha256msg2(xmm5, xmm3).unwrap();
            pair(a);
            pair(a);
        },
        |a| {
            pair(a);
            a.paddd(xmm1, xmm3).unwrap(); // the words are changed between the pairs
            pair(a);
        },
        |a| {
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.pshufd(xmm0, xmm0, 0xe).unwrap();
            a.movdqa(xmm5, xmm2).unwrap(); // what the first leaves is read
            a.sha256rnds2(xmm1, xmm2).unwrap();
        },
        |a| {
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.pshufd(xmm0, xmm0, 0xe).unwrap();
            a.movdqu(xmm5, rsp + 8).unwrap(); // may fault
            a.sha256rnds2(xmm1, xmm2).unwrap();
        },
        |a| {
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.pshufd(xmm0, xmm0, 0x4e).unwrap();
            a.pshufd(xmm0, xmm0, 0xe).unwrap(); // not the other half
            a.sha256rnds2(xmm1, xmm2).unwrap();
        },
        |a| {
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.sha256rnds2(xmm1, xmm2).unwrap(); // the same half
        },
    ]
}

/// The steps of the message schedule of SHA-256: what PALIGNR puts together is overwritten unseen, is looked at, is not
/// overwritten, or one of its words is overwritten before; with an access that faults meanwhile, and one between.
fn sha256_schedules() -> Vec<fn(&mut CodeAssembler)> {
    fn steps(a: &mut CodeAssembler, before_the_last: impl Fn(&mut CodeAssembler)) {
        a.movdqa(xmm7, xmm6).unwrap();
        a.palignr(xmm7, xmm5, 4).unwrap();
        a.nop().unwrap();
        a.paddd(xmm3, xmm7).unwrap();
        a.sha256msg1(xmm4, xmm5).unwrap();
        before_the_last(a);
        a.sha256msg2(xmm3, xmm6).unwrap();
    }
    vec![
        |a| {
            steps(a, |_| ());
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            steps(a, |_| ());
            a.movdqa(xmm0, xmm7).unwrap();
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| steps(a, |_| ()),
        |a| {
            steps(a, |a| a.paddd(xmm5, xmm4).unwrap());
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            steps(a, |_| ());
            a.paddd(xmm6, xmm4).unwrap();
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            steps(a, |a| a.movdqa(xmm0, rsp + 8).unwrap()); // raises #GP
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            steps(a, |_| ());
            a.movdqa(xmm0, rsp + 8).unwrap();
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            a.movdqa(xmm7, xmm6).unwrap();
            a.palignr(xmm7, xmm5, 4).unwrap();
            a.sha256msg1(xmm4, xmm5).unwrap(); // emitted behind PALIGNR
            a.paddd(xmm3, xmm7).unwrap();
            a.sha256msg2(xmm3, xmm6).unwrap();
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            a.movdqa(xmm7, xmm6).unwrap();
            a.palignr(xmm7, xmm5, 4).unwrap();
            a.movdqa(xmm5, xmm4).unwrap();
            a.paddd(xmm3, xmm7).unwrap();
            a.sha256msg2(xmm3, xmm6).unwrap();
            a.movdqa(xmm7, xmm3).unwrap();
        },
        |a| {
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.pshufd(xmm0, xmm0, 0xe).unwrap();
            a.movdqa(xmm7, xmm6).unwrap();
            a.palignr(xmm7, xmm5, 4).unwrap();
            a.sha256rnds2(xmm1, xmm2).unwrap(); // its words are not put into their registers yet
            a.paddd(xmm3, xmm7).unwrap();
            a.movdqa(xmm0, xmm6).unwrap();
            a.sha256rnds2(xmm2, xmm1).unwrap();
            a.pshufd(xmm0, xmm0, 0xe).unwrap();
            a.sha256msg2(xmm3, xmm6).unwrap();
            a.movdqa(xmm7, xmm4).unwrap();
            a.sha256rnds2(xmm1, xmm2).unwrap();
        },
    ]
}

#[test]
fn rounds_of_sha256_are_those_of_the_helpers() {
    let with = HostFeatures { sha2: true, ..HostFeatures::default() };
    let word = |i: u128| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let start: Vec<u128> = (0..8).map(word).collect();
    for (i, shape) in sha256_shapes().into_iter().chain(sha256_schedules()).enumerate() {
        let (exit, arm) = run(with, &start, shape);
        let (expected, helpers) = run(HostFeatures::default(), &start, shape);
        assert_eq!(arm.xmm, helpers.xmm, "shape {i}");
        assert_eq!(format!("{exit:?}"), format!("{expected:?}"), "shape {i}");
    }
}

/// An operation on xmm1 and, if it has two operands, another register.
type Emit = fn(&mut CodeAssembler, AsmRegisterXmm);

#[test]
fn a_copy_and_what_is_done_to_it() {
    let operations: [Emit; 16] = [
        |a, m| a.paddd(xmm1, m).unwrap(),
        |a, m| a.psubw(xmm1, m).unwrap(),
        |a, m| a.pxor(xmm1, m).unwrap(),
        |a, m| a.pandn(xmm1, m).unwrap(),
        |a, m| a.pcmpeqd(xmm1, m).unwrap(),
        |a, m| a.pmaddubsw(xmm1, m).unwrap(),
        |a, m| a.psignb(xmm1, m).unwrap(),
        |a, m| a.punpcklwd(xmm1, m).unwrap(),
        |a, m| a.punpckhqdq(xmm1, m).unwrap(),
        |a, m| a.packuswb(xmm1, m).unwrap(),
        |a, m| a.palignr(xmm1, m, 4).unwrap(),
        |a, m| a.palignr(xmm1, m, 16).unwrap(),
        |a, m| a.palignr(xmm1, m, 19).unwrap(),
        |a, _| a.psrld(xmm1, 4).unwrap(),
        |a, _| a.psllq(xmm1, 0).unwrap(),
        |a, _| a.psraw(xmm1, 15).unwrap(),
    ];
    let xmm = [
        0,
        1,
        0x8081_8283_7f7e_7d7c_0102_0304_fffe_fdfc,
        0x0102_0304_0506_0708_8090_a0b0_c0d0_e0f0,
    ];
    for (i, operation) in operations.into_iter().enumerate() {
        // The copy's source and its destination may be operands, too.
        for m in [xmm1, xmm2, xmm3] {
            let results = [false, true].map(|apart| {
                let (_, cpu) = run(HostFeatures::default(), &xmm, |a| {
                    a.movdqa(xmm1, xmm2).unwrap();
                    if apart {
                        a.nop().unwrap();
                    }
                    operation(a, m);
                });
                cpu.xmm[..4].to_vec()
            });
            assert_eq!(results[0], results[1], "operation {i}, {m:?}");
        }
    }
}
