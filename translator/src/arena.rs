//! Memory for what is kept of each translation: handed out piece by piece, given back all at once.

use crate::cache::anonymous;
use std::io;
use std::mem::{align_of, needs_drop, size_of};
use std::sync::atomic::{AtomicU64, Ordering};

/// A reserved stretch of address space, used from its start on.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    end: u64,
    next: AtomicU64,
}

impl Arena {
    /// Reserves `size` bytes of address space.
    pub fn new(size: usize) -> io::Result<Self> {
        let base = anonymous(size, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Arena { base, end: base + size as u64, next: AtomicU64::new(base) })
    }

    /// Room for so many values, handed out to nobody else.
    fn room<T>(&self, count: usize) -> Option<*mut T> {
        const { assert!(!needs_drop::<T>()) };
        let start = self.next.load(Ordering::Relaxed).next_multiple_of(align_of::<T>() as u64);
        let end = start + (count * size_of::<T>()) as u64;
        if end > self.end {
            return None;
        }
        self.next.store(end, Ordering::Relaxed);
        Some(start as *mut T)
    }

    /// Copies the values into the arena, as [`slice`](Self::slice).
    pub fn copy<T: Copy>(&self, values: &[T]) -> Option<&'static [T]> {
        let first = self.room(values.len())?;
        // SAFETY: the room is as large, aligned, and nobody else's. Whoever calls `reset` vouches that nothing refers to it.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len());
            Some(std::slice::from_raw_parts(first, values.len()))
        }
    }

    /// Puts the values into the arena, where they stay until [`reset`](Self::reset); None if there is no room.
    /// Only one thread at a time may call this (the holder of the engine's lock).
    pub fn slice<T>(&self, values: impl ExactSizeIterator<Item = T>) -> Option<&'static [T]> {
        let count = values.len();
        let first = self.room::<T>(count)?;
        let mut written = 0;
        for value in values {
            if written == count {
                break;
            }
            // SAFETY: inside of the room.
            unsafe { first.add(written).write(value) };
            written += 1;
        }
        // SAFETY: so many values were written. Whoever calls `reset` vouches that nothing refers to them.
        Some(unsafe { std::slice::from_raw_parts(first, written) })
    }

    /// One value.
    pub fn value<T>(&self, value: T) -> Option<&'static T> {
        self.slice(std::iter::once(value)).map(|s| &s[0])
    }

    /// Takes everything back.
    ///
    /// # Safety
    /// Nothing that the arena has given may be in use.
    pub unsafe fn reset(&self) {
        self.next.store(self.base, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_apart() {
        let arena = Arena::new(1 << 16).unwrap();
        let bytes = arena.slice([1u8, 2, 3].into_iter()).unwrap();
        let word = arena.value(7u64).unwrap();
        let none = arena.slice(std::iter::empty::<u32>()).unwrap();
        assert_eq!((bytes, *word, none.len()), (&[1u8, 2, 3][..], 7, 0));
        assert!((std::ptr::from_ref(word) as usize).is_multiple_of(8));
    }

    #[test]
    fn a_full_arena_gives_nothing() {
        let arena = Arena::new(1 << 16).unwrap();
        assert!(arena.slice((0..1 << 14).map(|_: i32| 0u32)).is_some());
        assert!(arena.value(1u8).is_none());
        // SAFETY: nothing of it is used below.
        unsafe { arena.reset() };
        assert!(arena.value(1u8).is_some());
    }
}
