//! What the host processor has beyond ARMv8.0 (Documentation/arch/arm64/elf_hwcaps.rst).

use translator::engine::HostFeatures;

/// Bits of AT_HWCAP (arch/arm64/include/uapi/asm/hwcap.h).
mod hwcap {
    pub const AES: u64 = 1 << 3;
    pub const PMULL: u64 = 1 << 4;
    pub const SHA1: u64 = 1 << 5;
    pub const SHA2: u64 = 1 << 6;
    pub const CRC32: u64 = 1 << 7;
    pub const ATOMICS: u64 = 1 << 8;
    pub const CPUID: u64 = 1 << 11;
    pub const LRCPC: u64 = 1 << 15;
    pub const USCAT: u64 = 1 << 25;
    pub const ILRCPC: u64 = 1 << 26;
    pub const FLAGM: u64 = 1 << 27;
}

/// Bits of AT_HWCAP2.
mod hwcap2 {
    pub const FLAGM2: u64 = 1 << 7;
    pub const FRINT: u64 = 1 << 8;
    pub const AFP: u64 = 1 << 20;
}

/// Reads the host's AT_HWCAP and AT_HWCAP2 as the translator's names.
pub fn from_hwcaps(caps: u64, caps2: u64) -> HostFeatures {
    HostFeatures {
        lse: caps & hwcap::ATOMICS != 0,
        lse2: caps & hwcap::USCAT != 0,
        lrcpc: caps & hwcap::LRCPC != 0,
        lrcpc2: caps & hwcap::ILRCPC != 0,
        flagm: caps & hwcap::FLAGM != 0,
        flagm2: caps2 & hwcap2::FLAGM2 != 0,
        aes: caps & hwcap::AES != 0,
        pmull: caps & hwcap::PMULL != 0,
        sha1: caps & hwcap::SHA1 != 0,
        sha2: caps & hwcap::SHA2 != 0,
        crc32: caps & hwcap::CRC32 != 0,
        afp: caps2 & hwcap2::AFP != 0,
        frint: caps2 & hwcap2::FRINT != 0,
    }
}

/// What this host has: [`from_hwcaps`], and what the ID registers say beyond it. An emulator may
/// implement FEAT_AFP without announcing it in HWCAP2, and announce FEAT_LRCPC2 without implementing it well.
pub fn detect(caps: u64, caps2: u64) -> HostFeatures {
    let mut features = from_hwcaps(caps, caps2);
    features.afp |= caps & hwcap::CPUID != 0 && alternate_floating_point();
    features.lrcpc2 = features.lrcpc2 && offsets_are_signed();
    features
}

/// A feature as `--host-features` names it: its field.
type Field = (&'static str, fn(&mut HostFeatures) -> &mut bool);

/// Every feature by its name.
const FIELDS: [Field; 13] = [
    ("lse", |features| &mut features.lse),
    ("lse2", |features| &mut features.lse2),
    ("lrcpc", |features| &mut features.lrcpc),
    ("lrcpc2", |features| &mut features.lrcpc2),
    ("flagm", |features| &mut features.flagm),
    ("flagm2", |features| &mut features.flagm2),
    ("aes", |features| &mut features.aes),
    ("pmull", |features| &mut features.pmull),
    ("sha1", |features| &mut features.sha1),
    ("sha2", |features| &mut features.sha2),
    ("crc32", |features| &mut features.crc32),
    ("afp", |features| &mut features.afp),
    ("frint", |features| &mut features.frint),
];

/// Reads `NAME=off`, one value of `--host-features`: the name.
pub fn switched_off(value: &str) -> Result<&'static str, String> {
    let names = || FIELDS.map(|(name, _)| name).join(", ");
    let name = value.strip_suffix("=off").ok_or("a feature is only switched off: NAME=off")?;
    let known = FIELDS.iter().find(|(known, _)| *known == name);
    known.map(|(known, _)| *known).ok_or_else(|| format!("none of {}", names()))
}

/// Does without the features named.
pub fn switch_off(features: &mut HostFeatures, names: &[&str]) {
    for (_, field) in FIELDS.iter().filter(|(name, _)| names.contains(name)) {
        *field(features) = false;
    }
}

/// ID_AA64MMFR1_EL1.AFP (Arm ARM D19.2.64). Only to be called if HWCAP_CPUID is set: the kernel
/// then emulates the read.
#[cfg(target_arch = "aarch64")]
fn alternate_floating_point() -> bool {
    let mmfr1: u64;
    // SAFETY: reads an ID register, which HWCAP_CPUID allows.
    unsafe {
        core::arch::asm!("mrs {}, ID_AA64MMFR1_EL1", out(reg) mmfr1, options(nomem, nostack));
    }
    mmfr1 >> 44 & 15 != 0
}

#[cfg(not(target_arch = "aarch64"))]
fn alternate_floating_point() -> bool {
    false
}

/// Whether LDAPURB reads below its register when its offset is negative (Arm ARM, LDAPURB): QEMU from 8.1 to 9.0 takes
/// the offset of it and its kin for an unsigned one. Only to be called if the host says that it has FEAT_LRCPC2.
#[cfg(target_arch = "aarch64")]
fn offsets_are_signed() -> bool {
    const REACH: usize = 256;
    static BYTES: [u8; 2 * REACH + 1] = {
        let mut bytes = [0; 2 * REACH + 1];
        bytes[0] = 1;
        bytes
    };
    let read: u32;
    // SAFETY: reads a byte 256 below the register or 256 above it; both are in `BYTES`.
    unsafe {
        core::arch::asm!(
            ".inst 0x1950012a", // ldapurb w10, [x9, #-256]
            in("x9") BYTES.as_ptr().add(REACH),
            out("w10") read,
            options(nostack, readonly),
        );
    }
    read == 1
}

#[cfg(not(target_arch = "aarch64"))]
fn offsets_are_signed() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which some emulators fail at, for stores as for loads.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn a_host_with_lrcpc2_writes_below_the_register() {
        let [caps, caps2] = crate::start::host_capabilities();
        if !detect(caps, caps2).lrcpc2 {
            return;
        }
        let mut bytes = [0_u8; 513];
        // SAFETY: writes a byte 256 below the register or 256 above it; both are in `bytes`.
        unsafe {
            core::arch::asm!(
                ".inst 0x1910012a", // stlurb w10, [x9, #-256]
                in("x9") bytes.as_mut_ptr().add(256),
                in("w10") 1,
                options(nostack),
            );
        }
        assert_eq!((bytes[0], bytes[512]), (1, 0));
    }

    /// The values Linux reports on a Cortex-A72 (ARMv8.0 with the cryptography extension).
    #[test]
    fn cortex_a72() {
        let features = from_hwcaps(0x8ff, 0);
        let expected = HostFeatures {
            aes: true,
            pmull: true,
            sha1: true,
            sha2: true,
            crc32: true,
            ..HostFeatures::default()
        };
        assert_eq!(features, expected);
    }

    /// The values Linux reports on an Apple M1.
    #[test]
    fn apple_m1() {
        let features = from_hwcaps(0xffb3_ffff, 0x181);
        assert!(features.lse && features.lse2 && features.lrcpc2 && features.flagm2);
        assert!(features.frint && !features.afp);
    }

    #[test]
    fn features_are_switched_off_by_name() {
        let mut features = from_hwcaps(!0, !0);
        switch_off(&mut features, &["flagm", "afp"]);
        assert_eq!(features, HostFeatures { flagm: false, afp: false, ..from_hwcaps(!0, !0) });
        switch_off(&mut features, &FIELDS.map(|(name, _)| name));
        assert_eq!(features, HostFeatures::default());
        assert_eq!(switched_off("afp=off"), Ok("afp"));
        assert!(switched_off("afp").is_err() && switched_off("afq=off").is_err());
    }
}
