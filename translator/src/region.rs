//! Finding a region: the guest instructions that are translated together, in address order,
//! joined by their direct branches.
//!
//! Decoding runs straight on from the entry, past conditional branches and calls. It also goes on
//! behind an unconditional end (JMP, RET) at the nearest forward branch target that is still open,
//! so that an if/else and the loop around it become one region. A branch whose target lies in the
//! region is internal, any other leaves it.

use crate::decode::{self, Skimmed};
use crate::engine::{GuestMemory, PAGE};
use crate::flags::Flags;
use crate::lower::table::{self, Entry};
use std::cell::Cell;
use std::ops::Range;

use iced_x86::{Code, FlowControl, Instruction};

/// Most instructions in a region, but for those that read the flags of the last one.
pub const MAX_INSTRUCTIONS: usize = 256;
/// Most of them that are perhaps not executed: behind a conditional branch, or behind where control ends.
const MAX_UNCERTAIN: usize = 64;
/// So many more may be taken in where the region else would end between flags and their reader.
const MAX_READERS: usize = 8;
/// So many instructions that are translated already are read in search of the end of a loop.
const MAX_LOOP: usize = 16;
/// How far (in bytes) behind the entry a region may reach.
pub const MAX_SPAN: u64 = 2048;

/// A guest instruction with what its neighbours need of it.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    /// The decoded instruction.
    pub ins: Instruction,
    /// Its entry in the instruction table.
    pub entry: &'static Entry,
    /// Flags that it reads, also at a fault that may be looked at.
    pub reads: Flags,
    /// Flags whose old values are gone behind it.
    pub kills: Flags,
    /// How it goes on.
    pub flow: FlowControl,
    /// Where control goes that does not branch.
    pub next: Next,
    /// Flags that are read after this instruction before they are written again.
    pub live_out: Flags,
    /// Flags that are live before it.
    pub live_in: Flags,
    /// An internal branch goes here: control arrives from more than one place.
    pub join: bool,
    /// For a direct branch inside the region: index of its target.
    pub target: Option<u16>,
    /// For a direct branch or call out of the region: flags live at its target.
    pub live_taken: Flags,
    /// Where control falls out of the region: flags live there.
    pub live_fallen: Flags,
}

/// Where control goes behind an instruction that does not branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Into the next instruction of the region.
    Inside,
    /// Out of the region.
    Outside,
    /// It does not come there.
    Never,
}

impl Insn {
    /// An instruction that is still to be decoded.
    fn new() -> Self {
        Insn {
            ins: Instruction::default(),
            entry: table::invalid(),
            reads: Flags::NONE,
            kills: Flags::NONE,
            flow: FlowControl::Next,
            next: Next::Never,
            live_out: Flags::NONE,
            live_in: Flags::NONE,
            join: false,
            target: None,
            live_taken: Flags::NONE,
            live_fallen: Flags::NONE,
        }
    }

    /// Fills in what follows from the decoded instruction.
    fn classify(&mut self) {
        self.entry = table::entry(&self.ins);
        self.reads = self.entry.reads;
        self.kills = self.entry.kills(&self.ins);
        self.flow = self.ins.flow_control();
    }

    /// A jump, conditional or not, LOOP and JRCXZ included; not a call.
    pub fn is_jump(&self) -> bool {
        use FlowControl::*;
        matches!(self.flow, UnconditionalBranch | ConditionalBranch)
    }

    fn ends_block(&self) -> bool {
        ends_block(self.flow, self.ins.code())
    }

    /// There is no instruction behind it in the region.
    fn ends_region(&mut self) {
        if self.next == Next::Inside {
            self.next = Next::Outside;
        }
    }

    /// Whether the region must end behind it because it leaves translated code.
    pub fn leaves_for_good(&self) -> bool {
        leaves_for_good(self.flow, self.ins.code())
    }
}

/// Whether control never goes on to the next instruction.
fn ends_block(flow: FlowControl, code: Code) -> bool {
    use FlowControl::*;
    matches!(flow, UnconditionalBranch | IndirectBranch | Return | Exception | Interrupt)
        || code == Code::INVALID
}

/// Whether the region must end behind the instruction because it leaves translated code.
fn leaves_for_good(flow: FlowControl, code: Code) -> bool {
    use iced_x86::Mnemonic::*;
    flow != FlowControl::Next && matches!(code.mnemonic(), Syscall | Sysenter | Hlt)
}

/// Whether control may go on to the next instruction, in translated code.
pub fn goes_on(code: Code) -> bool {
    let flow = code.flow_control();
    !ends_block(flow, code) && !leaves_for_good(flow, code)
}

/// Instructions of a region in address order.
#[derive(Debug, Default)]
pub struct Region {
    /// Guest address of the entry, which is the first instruction.
    pub entry: u64,
    /// Whether a branch inside of it leads back.
    pub has_loop: bool,
    /// Whether it is a loop without its first instructions, which have been interpreted. The region that begins with them
    /// takes in the others once more, so that the loop becomes one region.
    pub lacks_head: bool,
    /// The instructions.
    pub insns: Vec<Insn>,
    /// Whether a handler may look at the flags at a fault, see [`crate::fault_flags`].
    pub flags_live_at_fault: bool,
    /// Code outside of the region that what is known of it rests on, see [`crate::facts`].
    pub looked_at: Vec<Looked>,
    open: Vec<u64>,
    /// Indices of those that end a block, and of some that it has been cut short by.
    block_ends: Vec<u16>,
    /// Indices of its jumps.
    jumps: Vec<u16>,
    /// Indices of its calls; of those that it has been cut short by, too.
    pub calls: Vec<u16>,
}

/// What a region being found is told of the others.
pub trait Translated {
    /// Whether there is a translation that can be entered at the instruction at an address.
    fn at(&self, addr: u64) -> bool;

    /// There is none from `addr` up to this address, and perhaps further.
    fn none_before(&self, addr: u64) -> u64;

    /// Whether one that can be entered at `addr` leads back to the code from `entry` on before it.
    fn goes_back(&self, addr: u64, entry: u64) -> bool;
}

/// Of no others.
pub struct NoneTranslated;

impl Translated for NoneTranslated {
    fn at(&self, _: u64) -> bool {
        false
    }

    fn none_before(&self, _: u64) -> u64 {
        u64::MAX
    }

    fn goes_back(&self, _: u64, _: u64) -> bool {
        false
    }
}

/// A stretch of guest code: its first byte, and behind its last one.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Looked {
    pub start: u64,
    pub end: u64,
}

/// Guest code as one translation reads it: what the memory map said of the neighbourhood is kept.
pub struct CodeReader<'a> {
    memory: &'a dyn GuestMemory,
    /// Tells of a page's number whether it is watched already; none if what is read need not be.
    is_watched: Option<&'a dyn Fn(u64) -> bool>,
    windows: Cell<Windows>,
    /// Whether all of them are watched.
    all_watched: Cell<bool>,
}

/// Executable bytes: start and end, of the places that were asked for last.
#[derive(Clone, Copy)]
pub struct Windows([(u64, u64); 4]);

impl Default for Windows {
    fn default() -> Self {
        Windows([NO_WINDOW; 4])
    }
}

impl<'a> CodeReader<'a> {
    /// Reads through the memory map.
    pub fn new(memory: &'a dyn GuestMemory) -> Self {
        let (windows, all_watched) = (Cell::default(), Cell::new(true));
        CodeReader { memory, is_watched: None, windows, all_watched }
    }

    /// The same, of which a stretch is known.
    pub fn knowing(memory: &'a dyn GuestMemory, [start, end]: [u64; 2]) -> Self {
        let reader = Self::new(memory);
        if end >= ENOUGH {
            reader.windows.set(Windows([(start, end), NO_WINDOW, NO_WINDOW, NO_WINDOW]));
        }
        reader
    }

    /// The same for a translation: pages are watched before they are read, so that no write goes unnoticed
    /// between the two. Of the `windows` all pages are watched.
    pub fn watching(
        memory: &'a dyn GuestMemory,
        is_watched: &'a dyn Fn(u64) -> bool,
        windows: Windows,
    ) -> Self {
        let windows = Cell::new(windows);
        CodeReader { is_watched: Some(is_watched), windows, ..Self::new(memory) }
    }

    /// What the next reader may be given, as long as no page ceases to be watched.
    pub fn watched_windows(&self) -> Windows {
        if self.all_watched.get() { self.windows.get() } else { Windows::default() }
    }

    /// How many bytes at `addr` can be fetched; no more than the decoder looks at.
    #[inline]
    fn available(&self, addr: u64) -> usize {
        let Windows([(start, end), ..]) = self.windows.get();
        if (start..=end - ENOUGH).contains(&addr) { decode::WINDOW } else { self.look_up(addr) }
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, addr: u64) -> usize {
        let Windows(mut windows) = self.windows.get();
        let fits = |&(start, end): &(u64, u64)| addr >= start && end.saturating_sub(addr) >= ENOUGH;
        if let Some(known) = windows.iter().position(fits) {
            windows.swap(0, known);
            self.windows.set(Windows(windows));
            return decode::WINDOW;
        }
        let mut end = self.watched_until(addr);
        let mut length = end.saturating_sub(addr);
        if length < ENOUGH {
            length = self.memory.executable_from(addr);
            if length == 0 {
                return 0;
            }
            end = self.watch(addr, addr + length);
            self.all_watched.set(false);
        }
        // Access is by pages: what holds for a byte holds for those before it.
        windows.rotate_right(1);
        windows[0] = (addr / PAGE * PAGE, end);
        self.windows.set(Windows(windows));
        length.min(ENOUGH) as usize
    }

    /// The end of the page at `addr`, and of the next one if the code may go on there, if they are watched: as long
    /// as they are they are executable, since whatever changes that invalidates their translations. Else 0.
    fn watched_until(&self, addr: u64) -> u64 {
        let page = addr / PAGE;
        let end = (page + 1) * PAGE;
        match self.is_watched {
            Some(is_watched) if !is_watched(page) => 0,
            Some(is_watched) if end - addr < ENOUGH && is_watched(page + 1) => end + PAGE,
            Some(_) => end,
            None => 0,
        }
    }

    /// Sees that the instruction at `addr` is watched, in executable memory up to `end`. Returns the end of the code
    /// that may be read.
    fn watch(&self, addr: u64, end: u64) -> u64 {
        let Some(is_watched) = self.is_watched else { return end };
        let pages = addr / PAGE..=((addr + decode::LONGEST as u64).min(end) - 1) / PAGE;
        for page in pages.clone().filter(|&page| !is_watched(page)) {
            self.memory.watch(page * PAGE, (page + 1) * PAGE);
        }
        end.min((pages.end() + 1) * PAGE)
    }
}

/// So many bytes are all that the decoder looks at.
const ENOUGH: u64 = decode::WINDOW as u64;
/// None of its bytes has enough behind it.
const NO_WINDOW: (u64, u64) = (1, ENOUGH);

/// Decodes the instruction at `addr` into `ins`, which is `Instruction::default()`. An undefined encoding
/// gives `Code::INVALID`. Returns false if its bytes are not all executable memory.
#[inline]
pub fn fetch(code: &CodeReader, addr: u64, ins: &mut Instruction) -> bool {
    let available = code.available(addr);
    if available == 0 {
        return false;
    }
    // SAFETY: the memory map says that these bytes are mapped and readable. The guest may change
    // them meanwhile, which is its own race: any bytes decode to something.
    let bytes = unsafe { std::slice::from_raw_parts(addr as *const u8, available) };
    decode::decode_out(ins, bytes, addr);
    let cut_off = available < decode::LONGEST && ins.len() >= available;
    !(cut_off && ins.is_invalid())
}

/// What the instruction at `addr` is, and where it goes, but not its operands. None if it is to be [`fetch`]ed.
#[inline]
pub fn skim(code: &CodeReader, addr: u64) -> Option<Skimmed> {
    window(code, addr).and_then(|bytes| decode::skim(bytes, addr))
}

/// All bytes from `addr` on that a decoder looks at, if so many are executable memory.
#[inline]
pub fn window<'a>(code: &CodeReader<'a>, addr: u64) -> Option<&'a [u8; decode::WINDOW]> {
    // SAFETY: as in `fetch`.
    let bytes = || unsafe { &*(addr as *const [u8; decode::WINDOW]) };
    (code.available(addr) >= decode::WINDOW).then(bytes)
}

/// Address a direct near branch goes to.
pub fn direct_target(ins: &Instruction) -> Option<u64> {
    use iced_x86::OpKind::*;
    matches!(ins.op0_kind(), NearBranch16 | NearBranch32 | NearBranch64)
        .then(|| ins.near_branch_target())
}

impl Region {
    /// Decodes the region at `entry`, at most `max` instructions. It ends where it runs into an instruction
    /// that is translated already, unless a loop goes round there. Returns false if there is no
    /// executable memory at `entry`. Where control has a choice only what has been `visited` is taken in.
    pub fn build(
        &mut self,
        code: &CodeReader,
        entry: u64,
        max: usize,
        translated: &impl Translated,
        visited: impl Fn(u64) -> bool,
    ) -> bool {
        self.entry = entry;
        self.insns.clear();
        self.open.clear();
        self.block_ends.clear();
        self.jumps.clear();
        self.calls.clear();
        let mut pos = entry;
        let mut none_before = translated.none_before(entry + 1);
        let mut limit = max;
        let mut runs_into = false;
        let mut behind_branch = false;
        loop {
            let count = self.insns.len();
            if pos >= none_before {
                none_before = translated.none_before(pos + 1);
                if translated.at(pos) {
                    if !translated.goes_back(pos, entry) {
                        break;
                    }
                    runs_into = true;
                    none_before = u64::MAX;
                    limit = limit.min(count + MAX_LOOP);
                }
            }
            self.insns.push(Insn::new());
            let Some(insn) = self.insns.last_mut() else { break };
            if !fetch(code, pos, &mut insn.ins) {
                self.insns.pop();
                break;
            }
            insn.classify();
            let over = count >= limit;
            if over && (max == 1 || count >= limit + MAX_READERS || insn.reads.is_empty()) {
                self.insns.pop();
                break;
            }
            let next = insn.ins.next_ip();
            if insn.flow == FlowControl::Next {
                insn.next = Next::Inside;
                if behind_branch {
                    self.falls_into(count, pos);
                    behind_branch = false;
                }
                pos = next;
                continue;
            }
            self.block_ends.push(count as u16);
            let never = insn.ends_block();
            insn.next = if never { Next::Never } else { Next::Outside };
            let ends = never || insn.leaves_for_good();
            if insn.is_jump() {
                self.jumps.push(count as u16);
                if let Some(t) = direct_target(&insn.ins)
                    && t > pos
                    && t < entry + MAX_SPAN
                    && visited(t)
                {
                    self.open.push(t);
                }
            }
            if insn.flow == FlowControl::ConditionalBranch || ends {
                limit = limit.min(count + 1 + MAX_UNCERTAIN);
            }
            let is_call = insn.flow == FlowControl::Call;
            let choice = is_call || insn.flow == FlowControl::ConditionalBranch;
            if is_call {
                self.calls.push(count as u16);
            }
            if behind_branch {
                self.falls_into(count, pos);
            }
            behind_branch = true;
            pos = if ends || choice && !visited(next) {
                // The nearest forward target that has not been passed.
                match self.open.iter().copied().filter(|&t| t >= next).min() {
                    Some(t) => t,
                    None => break,
                }
            } else {
                next
            };
        }
        let Some(last) = self.insns.last_mut() else { return false };
        last.ends_region();
        self.resolve();
        if runs_into {
            self.end_where(translated);
        }
        true
    }

    /// The instruction at an index, and an address, has been taken in: control may come there from the one before.
    fn falls_into(&mut self, index: usize, addr: u64) {
        let before = &mut self.insns[index - 1];
        if before.next == Next::Outside && before.ins.next_ip() == addr && !before.leaves_for_good()
        {
            before.next = Next::Inside;
        }
    }

    /// Cuts the region short where it runs into an instruction that is translated, unless a loop goes from there
    /// back into the part before: a loop stays whole.
    fn end_where(&mut self, translated: &impl Translated) {
        let mut cut = 1;
        while cut < self.insns.len() {
            if !translated.at(self.insns[cut].ins.ip()) {
                cut += 1;
                continue;
            }
            let back = |insn: &Insn| insn.target.is_some_and(|t| usize::from(t) < cut);
            match self.insns[cut..].iter().rposition(back) {
                Some(last) => cut += last + 1,
                None => break,
            }
        }
        if cut < self.insns.len() {
            self.end_before(cut);
        }
    }

    /// Cuts the region short before the instruction at an index, which is not the first one.
    pub fn end_before(&mut self, cut: usize) {
        self.insns.truncate(cut);
        for insn in &mut self.insns {
            // A join whose only branch is gone stays one: that does no harm.
            insn.target = insn.target.filter(|&t| usize::from(t) < cut);
        }
        self.insns[cut - 1].ends_region();
    }

    /// Index of the instruction at an address.
    pub fn index_of(&self, addr: u64) -> Option<usize> {
        self.insns.binary_search_by_key(&addr, |i| i.ins.ip()).ok()
    }

    /// Finds out which instructions are joined by branches.
    #[inline(always)]
    fn resolve(&mut self) {
        let last = self.insns.last().map_or(0, |insn| insn.ins.ip());
        self.has_loop = false;
        for &i in &self.jumps {
            let i = usize::from(i);
            if let Some(t) = direct_target(&self.insns[i].ins)
                && (self.entry..=last).contains(&t)
                && let Some(t) = self.index_of(t)
            {
                self.insns[i].target = Some(t as u16);
                self.insns[t].join = true;
                self.has_loop |= t <= i;
            }
        }
    }

    /// For each instruction that ends a block: behind all others control goes on to the next one.
    pub fn each_block_end(&mut self, mut f: impl FnMut(&mut Insn, &mut Vec<Looked>)) {
        let Region { insns, block_ends, looked_at, .. } = self;
        let Some(last) = insns.len().checked_sub(1) else { return };
        for &i in block_ends.iter().take_while(|&&i| usize::from(i) < last) {
            f(&mut insns[usize::from(i)], looked_at);
        }
        f(&mut insns[last], looked_at);
    }

    /// Whether one of its jumps goes to a stretch of code.
    pub fn leads_to(&self, code: Range<u64>) -> bool {
        self.jumps().any(|insn| direct_target(&insn.ins).is_some_and(|t| code.contains(&t)))
    }

    /// Its jumps, without those that it has been cut short by.
    fn jumps(&self) -> impl Iterator<Item = &Insn> {
        self.jumps.iter().map_while(|&i| self.insns.get(usize::from(i)))
    }

    /// Indices of the targets of its jumps, as often as they are.
    pub fn joins(&self) -> impl Iterator<Item = usize> {
        self.jumps().filter_map(|insn| insn.target.map(usize::from))
    }

    /// Whether the instruction behind `index` in the list is the one executed next when control
    /// falls through.
    pub fn falls_into_next(&self, index: usize) -> bool {
        self.insns[index].next == Next::Inside
    }
}
