//! Host signals that interrupt translated code: faults that are the guest's, and requests to leave.

use super::Engine;
use crate::cache::RegionMeta;
use crate::fault_access;
use crate::fault_flags;
use crate::flags::Flags;
use crate::lower::FlagState;
use crate::region::{CodeReader, fetch};
use crate::state::{CpuState, ExitCode, Fault};
use crate::tramp::Trampoline;
use iced_x86::Instruction;

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

/// `si_code` of a SIGBUS for a misaligned access.
const BUS_ADRALN: i32 = 1;

impl Engine {
    /// For the host's SIGSEGV/SIGBUS handler. If the context was executing translated code or a
    /// run-time helper on behalf of the guest, stores the exact guest state in `cpu` and changes
    /// the context so that [`run`](Self::run) returns [`super::Exit::MemoryFault`] once the handler
    /// returns; also resolves the translator's own faults (shadow stack guards). Returns false if
    /// the fault was not the guest's. `cpu.fault` is filled by this call. Async-signal-safe.
    pub fn handle_fault(
        &self,
        cpu: &mut CpuState,
        context: &mut HostContext,
        fault: Fault,
    ) -> bool {
        if self.contains(context.pc) {
            if fault.addr.wrapping_sub(cpu.shadow_block[0]) < cpu.shadow_block[1] {
                context.x[27] = cpu.shadow_top;
                return true;
            }
            let Some((meta, pc)) = self.cache.locate(context.pc) else {
                return false;
            };
            if fault.signo == libc::SIGBUS as u32
                && fault.code == BUS_ADRALN
                && pc == context.pc // not in a detour
                && let Some(at) = self.cache.relax(meta, pc)
            {
                context.pc = at;
                return true;
            }
            if let Some(at) = meta.recovery(pc) {
                context.pc = at;
                return true;
            }
            save_context(cpu, context, meta, pc);
            cpu.fault_pc = pc;
        } else if cpu.helper_return != 0 {
            // CallHelper has saved the state, and the helper has not changed it yet.
            cpu.fault_pc = cpu.helper_return - 4; // the call
            cpu.helper_return = 0;
        } else if cpu.interpreting != 0 {
            // Between two instructions, see `interpret`.
            cpu.interpreting = 0;
            cpu.fault_pc = 0;
        } else {
            return false;
        }
        cpu.fault = fault;
        cpu.exit = ExitCode::MemoryFault as u64;
        context.pc = self.trampoline(Trampoline::Leave);
        context.sp = cpu.host_sp;
        context.fpcr = 0;
        true
    }

    /// For the handler of an asynchronous signal that interrupted the thread owning `cpu`: sets
    /// `cpu.interrupt` and sees that translated code is left at the next guest instruction
    /// boundary it reaches (end of the region or a backward branch). Async-signal-safe.
    pub fn request_exit(&self, cpu: &mut CpuState, context: &mut HostContext) {
        cpu.interrupt = 1;
        if cpu.entering == 0 {
            return; // outside: `run` looks before it enters
        }
        // Inside a region; or on the way in; or in a helper; or on the way to or from a helper.
        for pc in [context.pc, cpu.entering, cpu.helper_return, context.x[30]] {
            if let Some((meta, _)) = self.cache.locate(pc)
                && let Some(slot) = cpu.armed.iter_mut().find(|s| **s == 0)
            {
                *slot = meta as *const RegionMeta as u64;
                self.cache.arm(meta);
            }
        }
    }

    /// At a fault, computes the flags that translated code has left out, see [`fault_flags`]. The
    /// thread still counts as inside, so the region's record is there.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_flags(&self, cpu: &mut CpuState) {
        let Some(meta) = self.cache.region_at(cpu.fault_pc) else { return };
        let entry = meta.entry_at(cpu.fault_pc);
        let stale = Flags::ALL.without(entry.computed);
        if stale.is_empty() {
            return;
        }
        // The instructions before it stand in the map in guest order, some of them twice.
        let code = CodeReader::new(&*self.memory);
        let at = meta.map.iter().position(|e| e.guest == entry.guest).unwrap_or(0);
        let mut next = entry.guest;
        let before = meta.map[..at].iter().rev().map_while(|e| {
            if e.guest == next {
                return Some(None);
            }
            let mut ins = Instruction::default();
            if !fetch(&code, meta.guest + u64::from(e.guest), &mut ins) {
                return None;
            }
            let adjacent = e.guest + ins.len() as u32 == next;
            next = e.guest;
            adjacent.then_some(Some(ins))
        });
        let rflags = fault_flags::derive(cpu.rflags(), stale, &cpu.gpr, before.flatten());
        cpu.set_rflags(rflags);
    }

    /// Says of a fault what x86 would.
    #[cold]
    #[inline(never)]
    pub(super) fn describe_access(&self, cpu: &mut CpuState) {
        let code = CodeReader::new(&*self.memory);
        let mut ins = Instruction::default();
        if fetch(&code, cpu.rip, &mut ins)
            && let Some(access) = fault_access::access(&ins, cpu, cpu.fault.addr)
        {
            cpu.fault.write = u32::from(access.write);
            cpu.fault.stack = u32::from(access.stack);
            cpu.fault.addr = access.not_canonical.unwrap_or(cpu.fault.addr);
        }
    }
}

/// The guest's state from the host registers of translated code interrupted at `pc`.
fn save_context(cpu: &mut CpuState, context: &HostContext, meta: &RegionMeta, pc: u64) {
    let entry = meta.entry_at(pc);
    cpu.gpr.copy_from_slice(&context.x[..16]);
    cpu.gpr[4] = cpu.gpr[4].wrapping_add_signed(entry.stack.into());
    cpu.xmm.copy_from_slice(&context.v[..16]);
    cpu.fs_base = context.x[23];
    cpu.pf = context.x[25];
    cpu.af = context.x[26];
    if entry.flags.float {
        cpu.pf = u64::from(!FlagState::float_pf(context.pstate));
        cpu.af = cpu.pf;
    }
    cpu.nzcv = entry.flags.canonical_nzcv(context.pstate & 0xf000_0000);
    cpu.shadow_sp = context.x[27];
    cpu.fpsr = context.fpsr;
    cpu.rip = meta.guest + u64::from(entry.guest);
}
