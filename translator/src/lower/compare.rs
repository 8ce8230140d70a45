//! Comparisons and the conditional branch behind them.

use super::arith::{Rhs, Sum};
use super::operands::width_of;
use super::{BitTest, Lower};
use crate::asm::{R, fits_add_imm};
use crate::flags::Flags;
use crate::region::{Insn, Next};
use iced_x86::{ConditionCode, FlowControl, Mnemonic as M};

/// Flags of a CMP or TEST that are computed where a branch behind it leads, see
/// [`Lower::leave_to_edge`].
#[derive(Clone, Copy, Debug)]
pub struct EdgeFlags {
    /// CMP, else TEST.
    compare: bool,
    size: u32,
    a: R,
    rhs: Rhs,
    /// The flags that are read there.
    pub need: Flags,
    /// Those that are read where it does not branch.
    behind: Flags,
}

impl Lower<'_> {
    /// If a conditional branch out of the region follows, leaves the flags of a comparison that are read only where
    /// it leads to that edge: often that is code for errors, where they are not read, but too far to be seen.
    pub(super) fn leave_to_edge(&mut self, compare: bool, size: u32, a: R, rhs: Rhs) {
        let Some(branch) = self.region.insns.get(self.index + 1) else { return };
        let behind = match (branch.next, self.region.insns.get(self.index + 2)) {
            (Next::Inside, Some(behind)) => behind.live_in,
            _ => branch.live_fallen,
        };
        let leaves = self.region.falls_into_next(self.index)
            && branch.flow == FlowControl::ConditionalBranch
            && branch.target.is_none()
            && !branch.join
            && !self.region.flags_live_at_fault
            && !branch.entry.reads.any(Flags::P)
            // A narrow operand is shifted to a temporary there: it may not be one.
            && (size >= 4 || !matches!(rhs, Rhs::Reg(r) if r.0 >= 16));
        let inline = self.need.and(branch.entry.reads.or(behind));
        if leaves && inline != self.need && branch.ins.is_jcc_short_or_near() {
            let need = self.need.and(branch.live_taken);
            let behind = self.need.and(behind);
            self.carries = true;
            self.edge_flags = Some(EdgeFlags { compare, size, a, rhs, need, behind });
            self.need = inline;
        }
    }

    /// Computes what [`Self::leave_to_edge`] left.
    pub(super) fn flags_on_edge(&mut self, edge: EdgeFlags) {
        self.need = edge.need;
        if edge.compare {
            self.sum_flags(Sum::Sub, edge.size, edge.a, edge.rhs);
        } else if !edge.need.is_empty() {
            self.test_flags(edge.size, edge.a, edge.rhs);
        }
    }

    /// The flags that are read behind the branch that is next.
    fn live_behind(&self, branch: &Insn) -> Flags {
        self.edge_flags.map_or(branch.live_out, |edge| edge.behind)
    }

    /// The second operand of a comparison: the next number, if SUBS takes that and not the constant itself, and nobody reads
    /// the flags but a branch that tells greater from less or equal: it tells greater or equal from less, then.
    #[inline]
    pub(super) fn compare_with_next(&mut self, size: u32, rhs: Rhs) -> Rhs {
        let Rhs::Imm(v) = rhs else { return rhs };
        let takes = |v: u64| {
            let negated =
                if size == 4 { (v as u32).wrapping_neg().into() } else { v.wrapping_neg() };
            fits_add_imm(v) || fits_add_imm(negated)
        };
        if takes(v) || !fits_add_imm(v + 1) || !self.region.falls_into_next(self.index) {
            return rhs;
        }
        let branch = &self.region.insns[self.index + 1];
        let order = or_equal(branch.ins.condition_code()).is_some();
        if !order
            || branch.join
            || !branch.ins.is_jcc_short_or_near()
            || !self.live_behind(branch).is_empty()
        {
            return rhs;
        }
        self.carries = true;
        self.with_next = true;
        Rhs::Imm(v + 1)
    }

    /// If nobody but the conditional branch that follows reads the flags of `r & mask` (no mask:
    /// `r` itself), and CBZ or TBZ can do it, leaves the test to that branch.
    pub(super) fn leave_to_branch(&mut self, r: R, size: u32, mask: Option<u64>) -> bool {
        if !self.region.falls_into_next(self.index) {
            return false;
        }
        let next = &self.region.insns[self.index + 1];
        if next.join || !self.live_behind(next).is_empty() {
            return false;
        }
        let sign = 8 * size - 1;
        let test = match (next.ins.mnemonic(), mask) {
            (M::Je | M::Jne, None) if size >= 4 => BitTest::Zero(width_of(size), r),
            (M::Je | M::Jne, Some(m)) if m.is_power_of_two() => BitTest::Bit(r, m.trailing_zeros()),
            (M::Js | M::Jns, None) => BitTest::Bit(r, sign),
            _ => return false,
        };
        self.carries = true;
        self.bit_test = Some(test);
        true
    }
}

/// The condition that says of the next number what one says of a constant.
pub(super) fn or_equal(condition: ConditionCode) -> Option<ConditionCode> {
    use ConditionCode as CC;
    match condition {
        CC::a => Some(CC::ae),
        CC::be => Some(CC::b),
        CC::g => Some(CC::ge),
        CC::le => Some(CC::l),
        _ => None,
    }
}
