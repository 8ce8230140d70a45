//! `struct iovec`, the same on both architectures. The kernel gets a copy of the guest's vectors, so that no address in
//! them is the translator's, also if another thread changes them meanwhile.

use std::mem::offset_of;
use std::ops::Range;

use crate::abi::layout;
use crate::guest;

/// A piece of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Iovec {
    base: u64,
    len: u64,
}
layout!(Iovec, 16, len @ 8);
const _: () = assert!(offset_of!(Iovec, base) == 0);

impl Iovec {
    /// As the kernel gets it.
    fn for_kernel(self) -> Self {
        Self { base: guest::range_for_kernel(self.base, self.len), ..self }
    }
}

/// So many need no memory of their own (the kernel's UIO_FASTIOV).
const FEW: usize = 8;
/// A call with more than this is refused (UIO_MAXIOV).
const MAX: u64 = 1024;

/// A vector as it goes to the kernel. Where the kernel would read none, or none can be read, it is an address.
#[derive(Debug)]
pub enum Vectors {
    /// Few pieces of memory.
    Few([Iovec; FEW]),
    /// Many.
    Many(Vec<Iovec>),
    /// None.
    At(u64),
}

impl Vectors {
    /// Reads `count` of them, as the kernel gets them.
    pub fn read(addr: u64, count: u64) -> Self {
        let mut vectors = Self::of_guest(addr, count);
        vectors.pieces_mut().iter_mut().for_each(|piece| *piece = piece.for_kernel());
        vectors
    }

    /// The same for buffers that are registered, which may be more, and none of them be there yet.
    pub fn registered(addr: u64, count: u64) -> Self {
        /// IORING_MAX_REG_BUFFERS.
        const MAX: u64 = 1 << 14;
        let mut vectors = match addr {
            0 => Self::At(0),
            _ => Self::up_to(MAX, addr, count),
        };
        vectors.pieces_mut().iter_mut().for_each(|piece| *piece = piece.for_kernel());
        vectors
    }

    /// Reads `count` of them, as the guest has them.
    pub fn of_guest(addr: u64, count: u64) -> Self {
        Self::up_to(MAX, addr, count)
    }

    fn up_to(max: u64, addr: u64, count: u64) -> Self {
        // There is nothing to read, or the kernel refuses the number.
        if count == 0 || count > max {
            return Self::At(guest::for_kernel(addr));
        }
        let count = count as usize;
        let mut few = [Iovec::default(); FEW];
        let mut many = Vec::new();
        let vectors = if count <= FEW {
            &mut few[..count]
        } else {
            many.resize(count, Iovec::default());
            &mut many[..]
        };
        if guest::read_all(addr, vectors).is_err() {
            return Self::At(guest::NOWHERE);
        }
        if many.is_empty() { Self::Few(few) } else { Self::Many(many) }
    }

    /// Where the pieces are.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + Clone {
        self.pieces().iter().map(|piece| piece.base..piece.base.saturating_add(piece.len))
    }

    /// Whether all pieces are where a guest can have memory.
    pub fn is_in_reach(&self) -> bool {
        self.pieces().iter().all(|piece| piece.for_kernel() == *piece)
    }

    fn pieces(&self) -> &[Iovec] {
        match self {
            Self::Few(vectors) => vectors,
            Self::Many(vectors) => vectors,
            Self::At(_) => &[],
        }
    }

    fn pieces_mut(&mut self) -> &mut [Iovec] {
        match self {
            Self::Few(vectors) => vectors,
            Self::Many(vectors) => vectors,
            Self::At(_) => &mut [],
        }
    }

    /// Lets pieces of memory begin at multiples of `page`; how many bytes they had before.
    pub fn begin_at_multiples_of(&mut self, page: u64) -> u64 {
        let mut bytes = 0;
        for piece in self.pieces_mut() {
            bytes += piece.len;
            let before = piece.base % page;
            *piece = Iovec { base: piece.base - before, len: piece.len.saturating_add(before) };
        }
        bytes
    }

    /// Where they are; valid as long as `self` is and is not moved.
    pub fn addr(&self) -> u64 {
        match self {
            Self::Few(vectors) => vectors.as_ptr() as u64,
            Self::Many(vectors) => vectors.as_ptr() as u64,
            Self::At(addr) => *addr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would find.
    fn seen(vectors: &Vectors, count: usize) -> Vec<Iovec> {
        let mut seen = vec![Iovec::default(); count];
        guest::read_all(vectors.addr(), &mut seen).unwrap();
        seen
    }

    proptest! {
        #[test]
        fn pieces_of_the_guests_memory_arrive(pieces in prop::collection::vec((0..1u64 << 46, 0..1u64 << 46), 1..40)) {
            let pieces: Vec<_> = pieces.into_iter().map(|(base, len)| Iovec { base, len }).collect();
            let vectors = Vectors::read(pieces.as_ptr() as u64, pieces.len() as u64);
            prop_assert_ne!(vectors.addr(), pieces.as_ptr() as u64);
            prop_assert_eq!(seen(&vectors, pieces.len()), pieces);
        }

        #[test]
        fn nothing_of_the_translators_arrives(pieces in prop::collection::vec(any::<(u64, u64)>(), 1..40)) {
            let pieces: Vec<_> = pieces.into_iter().map(|(base, len)| Iovec { base, len }).collect();
            let vectors = Vectors::read(pieces.as_ptr() as u64, pieces.len() as u64);
            for (piece, seen) in pieces.iter().zip(seen(&vectors, pieces.len())) {
                prop_assert_eq!(piece.len, seen.len);
                let end = u128::from(seen.base) + u128::from(seen.len);
                prop_assert!(seen.base >= 0xffff << 48 || end <= 1 << 47);
            }
        }
    }

    #[test]
    fn pieces_out_of_reach_are_known() {
        let pieces = [[0x5000u64, 0x2000], [(1 << 47) - 5, 5], [(1 << 47) - 5, 6]];
        let read = |count| Vectors::of_guest(pieces.as_ptr() as u64, count);
        assert!(read(2).is_in_reach() && !read(3).is_in_reach());
        assert!(read(0).is_in_reach());
        assert!(
            read(2).ranges().eq([0x5000..0x7000, (1 << 47) - 5..1 << 47]
                .into_iter()
                .chain((2..8).map(|_| 0..0)))
        );
    }

    #[test]
    fn pieces_begin_at_larger_pages() {
        let pieces = [Iovec { base: 0x5000, len: 0x2000 }, Iovec { base: 0x8000, len: 10 }];
        let mut vectors = Vectors::read(pieces.as_ptr() as u64, 2);
        assert_eq!(vectors.begin_at_multiples_of(0x4000), 0x200a);
        let wanted = [Iovec { base: 0x4000, len: 0x3000 }, Iovec { base: 0x8000, len: 10 }];
        assert_eq!(seen(&vectors, 2), wanted);
    }

    #[test]
    fn what_cannot_be_read_is_nowhere() {
        assert!(matches!(Vectors::read(1 << 47, 1), Vectors::At(guest::NOWHERE)));
        assert!(matches!(Vectors::read(5, 0), Vectors::At(5)));
        assert!(matches!(Vectors::read(5, 1025), Vectors::At(5)));
        assert!(matches!(Vectors::registered(0, 8), Vectors::At(0)));
        let many = vec![[1u64 << 47, 8]; 2000];
        let registered = Vectors::registered(many.as_ptr() as u64, 2000);
        assert!(registered.pieces().iter().all(|piece| piece.base == 1 << 47 | guest::NOWHERE));
    }
}
