//! How a translator is set up.

/// How guest loads and stores are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrder {
    /// Plain loads and stores: one thread and no shared writable mapping.
    Plain,
    /// The same in the guest's order: the host is in TSO mode.
    Host,
    /// Acquire loads and release stores (LRCPC2 where the host has it).
    Ordered,
}

/// Optional instruction sets of the host that lowering may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // names are those of the Arm ARM
pub struct HostFeatures {
    pub lse: bool,
    pub lse2: bool,
    pub lrcpc: bool,
    pub lrcpc2: bool,
    pub flagm: bool,
    pub flagm2: bool,
    pub aes: bool,
    pub pmull: bool,
    pub sha1: bool,
    pub sha2: bool,
    pub crc32: bool,
    pub afp: bool,
    pub frint: bool,
}

/// How a translator is set up.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Initial memory order; see [`super::Engine::set_order`].
    pub order: MemoryOrder,
    /// What the host processor has.
    pub host: HostFeatures,
    /// Bytes of address space for translations.
    pub cache_size: usize,
    /// Keep flags exact over returns even before code is seen that reads them there.
    pub flags_live_at_return: bool,
    /// Print every region, guest and emitted code side by side, to standard error.
    pub dump_asm: bool,
    /// How often code is interpreted before it is translated; 255 is always.
    pub interpret: u8,
    /// Count how often each block of translated code is executed.
    pub profile: bool,
}

impl Default for Config {
    /// Nothing optional.
    fn default() -> Self {
        Config {
            order: MemoryOrder::Plain,
            host: HostFeatures::default(),
            cache_size: 0,
            flags_live_at_return: false,
            dump_asm: false,
            interpret: 0,
            profile: false,
        }
    }
}

/// What pays for [`Config::interpret`].
pub const INTERPRET: u8 = 2;
