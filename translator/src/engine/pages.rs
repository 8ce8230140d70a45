//! What has been translated of each page of guest code.

use super::{AddressHash, PAGE};
use crate::cache::RegionMeta;
use crate::region::{MAX_SPAN, Translated};
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

/// The translations that depend on a guest page. As long as there are any the page is watched.
pub(super) struct Page {
    /// Those of its code.
    pub(super) regions: Vec<&'static RegionMeta>,
    /// Those of them from which an exit leads back to code not far before them.
    pub(super) leading_back: Vec<&'static RegionMeta>,
    /// Those for which code in it was looked at.
    pub(super) lookers: Vec<&'static RegionMeta>,
    /// One bit for each byte of the page: control may come in there, in one of the regions.
    enterable: [u64; (PAGE / 64) as usize],
}

impl Page {
    pub(super) fn new() -> Box<Self> {
        Box::new(Page {
            regions: Vec::with_capacity(USUAL),
            leading_back: Vec::new(),
            lookers: Vec::new(),
            enterable: [0; (PAGE / 64) as usize],
        })
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.regions.is_empty() || !self.lookers.is_empty()
    }

    pub(super) fn is_enterable(&self, addr: u64) -> bool {
        self.enterable[(addr % PAGE / 64) as usize] >> (addr % 64) & 1 != 0
    }

    /// A region that has code in it, and whether that [leads back](near).
    pub(super) fn add(&mut self, page: u64, meta: &'static RegionMeta, leads_back: bool) {
        self.regions.push(meta);
        if leads_back {
            self.leading_back.push(meta);
        }
        let whole = meta.guest / PAGE == page && (meta.guest_end - 1) / PAGE == page;
        for addr in meta.enterables().filter(|addr| whole || addr / PAGE == page) {
            self.enterable[(addr % PAGE / 64) as usize] |= 1 << (addr % 64);
        }
    }

    /// Forgets the regions that are dead.
    pub(super) fn sweep(&mut self, page: u64) {
        let regions = std::mem::take(&mut self.regions);
        let mut lookers = std::mem::take(&mut self.lookers);
        lookers.retain(|meta| !meta.is_dead());
        *self = Page { lookers, ..*Self::new() };
        for meta in regions.into_iter().filter(|meta| !meta.is_dead()) {
            self.add(page, meta, meta.exits().any(|(_, target)| near(meta).contains(&target)));
        }
    }
}

/// Where an exit of a region leads that leads back: to code in it or not far before.
pub(super) fn near(meta: &RegionMeta) -> Range<u64> {
    meta.guest.saturating_sub(MAX_SPAN)..meta.guest_end
}

/// So many translations have room in a page's list at first.
const USUAL: usize = 16;

/// How far behind an inner loop another region may begin that leads back around it.
const NEAR: u64 = 16;

/// Those of all pages, by number.
pub(super) type Pages = HashMap<u64, Box<Page>, AddressHash>;

/// The translations in the neighbourhood of a new one.
pub(super) struct Around<'a> {
    pages: &'a Pages,
    /// The page that was asked for last.
    last: Cell<(u64, Option<&'a Page>)>,
}

impl<'a> Around<'a> {
    pub(super) fn new(pages: &'a Pages, addr: u64) -> Self {
        let around = Around { pages, last: Cell::new((0, None)) };
        around.look_up(addr / PAGE);
        around
    }

    fn page(&self, addr: u64) -> Option<&'a Page> {
        let (number, page) = self.last.get();
        if number == addr / PAGE { page } else { self.look_up(addr / PAGE) }
    }

    fn look_up(&self, number: u64) -> Option<&'a Page> {
        let page = self.pages.get(&number).map(|page| &**page);
        self.last.set((number, page));
        page
    }
}

impl Translated for Around<'_> {
    fn at(&self, addr: u64) -> bool {
        self.page(addr).is_some_and(|page| page.is_enterable(addr))
    }

    #[inline]
    fn none_before(&self, addr: u64) -> u64 {
        // As far as one word of the page's bits goes.
        let next = addr / 64 * 64 + 64;
        let Some(page) = self.page(addr) else { return next };
        let bits = page.enterable[(addr % PAGE / 64) as usize] >> (addr % 64);
        if bits == 0 { next } else { addr + u64::from(bits.trailing_zeros()) }
    }

    /// The region there does so itself, or it is a loop behind which another one does: an outer loop around it.
    fn goes_back(&self, addr: u64, entry: u64) -> bool {
        let Some(page) = self.page(addr) else { return false };
        let leads_to = |meta: &RegionMeta, code: Range<u64>| {
            !meta.is_dead() && meta.exits().any(|(_, target)| code.contains(&target))
        };
        let outer = |inner: &RegionMeta| {
            let near = inner.guest_end..inner.guest_end + NEAR;
            let mut behind = page.leading_back.iter().filter(|meta| near.contains(&meta.guest));
            behind.any(|meta| leads_to(meta, entry..addr))
        };
        let mut here = page.leading_back.iter().filter(|meta| {
            (meta.guest..meta.guest_end).contains(&addr) && meta.enterable(addr).is_some()
        });
        here.any(|meta| {
            leads_to(meta, entry..addr) || leads_to(meta, addr..meta.guest_end) && outer(meta)
        })
    }
}
