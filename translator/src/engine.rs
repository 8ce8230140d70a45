//! The translator as the rest of the program uses it: run guest code, forget translations,
//! say what guest state a host program counter stands for.

use crate::state::CpuState;

/// What the translator must know about the guest's memory. Implemented by the owner of the memory map.
pub trait GuestMemory: Send + Sync {
    /// How many bytes from `addr` on may be fetched as instructions (mapped, readable for the
    /// translator and executable for the guest); 0 if none. Need not look further than 4096 bytes.
    fn executable_from(&self, addr: u64) -> u64;

    /// Code in `start..end` has been translated: from now on a guest write there must end in
    /// [`Engine::invalidate`] before the write takes effect.
    fn watch(&self, start: u64, end: u64);
}

/// How guest loads and stores are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrder {
    /// Plain loads and stores: one thread and no shared writable mapping, or a host in TSO mode.
    Plain,
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
    /// Initial memory order; see [`Engine::set_order`].
    pub order: MemoryOrder,
    /// What the host processor has.
    pub host: HostFeatures,
    /// Bytes of address space for translations.
    pub cache_size: usize,
    /// Print every region, guest and emitted code side by side, to standard error.
    pub dump_asm: bool,
}

/// Why [`Engine::run`] came back. The guest state in [`CpuState`] is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `syscall`: `rip` is behind the instruction, rcx and r11 are already set as SYSCALL sets them.
    Syscall,
    /// A processor exception raised by an instruction, by vector (0 #DE, 1 #DB, 3 #BP, 4 #OF,
    /// 6 #UD, 13 #GP, 16 #MF, 19 #XM). `rip` is the instruction, for #BP and #OF the one behind it.
    Exception(u8),
    /// A guest load, store or instruction fetch faulted; `cpu.fault` says how, `rip` is the instruction.
    MemoryFault,
    /// `cpu.interrupt` was set; `rip` is the next instruction. The caller clears `interrupt`.
    Interrupted,
}

/// The registers of an interrupted host context, filled from and written back to a `ucontext_t`.
#[derive(Clone, Debug)]
pub struct HostContext {
    /// x0..x30.
    pub x: [u64; 31],
    /// Stack pointer.
    pub sp: u64,
    /// Program counter.
    pub pc: u64,
    /// PSTATE; NZCV in bits 31..28.
    pub pstate: u64,
    /// v0..v31.
    pub v: [u128; 32],
    /// Floating-point status.
    pub fpsr: u32,
    /// Floating-point control.
    pub fpcr: u32,
}

/// Counters for `--stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Regions translated.
    pub regions: u64,
    /// Guest instructions translated.
    pub guest_instructions: u64,
    /// Bytes of arm64 code emitted.
    pub host_bytes: u64,
    /// Direct branches linked.
    pub links: u64,
    /// Times translated code looked up an indirect target in Rust.
    pub indirect_misses: u64,
    /// Translations thrown away because guest code changed.
    pub invalidations: u64,
}

/// One translator, shared by all threads of a process.
pub struct Engine {}

impl Engine {
    /// Reserves the code cache. Fails only when the address space cannot be had.
    pub fn new(_config: Config, _memory: Box<dyn GuestMemory>) -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Gives a new thread's state its tables (shadow stack, branch table, trampolines, helpers).
    pub fn attach(&self, _cpu: &mut CpuState) -> std::io::Result<()> {
        Ok(())
    }

    /// Releases what [`attach`](Self::attach) gave.
    pub fn detach(&self, _cpu: &mut CpuState) {}

    /// Runs guest code from `cpu.rip` until something needs the caller.
    pub fn run(&self, _cpu: &mut CpuState) -> Exit {
        Exit::Interrupted
    }

    /// Runs exactly one guest instruction (used for a store into a page that holds translated code).
    pub fn step(&self, _cpu: &mut CpuState) -> Exit {
        Exit::Interrupted
    }

    /// Forgets every translation of guest code in `start..end`, in every thread.
    pub fn invalidate(&self, _start: u64, _end: u64) {}

    /// Changes the memory order; translations made for the other order are thrown away.
    pub fn set_order(&self, _order: MemoryOrder) {}

    /// Whether the host address is inside emitted code (translations and trampolines).
    /// Async-signal-safe.
    pub fn contains(&self, _host_pc: u64) -> bool {
        false
    }

    /// For the host's SIGSEGV/SIGBUS handler. If the context was executing translated code or a
    /// run-time helper on behalf of the guest, stores the exact guest state in `cpu` and changes
    /// the context so that [`run`](Self::run) returns [`Exit::MemoryFault`] once the handler
    /// returns; also resolves the translator's own faults (shadow stack guards). Returns false if the fault was
    /// not the guest's. `cpu.fault` is filled by this call. Async-signal-safe.
    pub fn handle_fault(
        &self,
        _cpu: &mut CpuState,
        _context: &mut HostContext,
        _fault: crate::state::Fault,
    ) -> bool {
        false
    }

    /// For the handler of an asynchronous signal that interrupted the thread owning `cpu`: sets
    /// `cpu.interrupt` and sees that translated code is left at the next guest instruction
    /// boundary it reaches (end of the region or a backward branch). Async-signal-safe.
    pub fn request_exit(&self, _cpu: &mut CpuState, _context: &mut HostContext) {}

    /// Takes every lock of the translator so that the process can be forked;
    /// dropping the guard, in the parent and in the child, releases them.
    pub fn lock_for_fork(&self) -> ForkGuard<'_> {
        ForkGuard { _engine: self }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// See [`Engine::lock_for_fork`].
pub struct ForkGuard<'a> {
    _engine: &'a Engine,
}
