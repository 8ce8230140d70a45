//! The heap of the translator itself. glibc's malloc keeps state for each thread that only its own
//! thread library sets up and tears down; guest threads are made by a bare clone(2), so the heap
//! is a dlmalloc under a lock that fork can take.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

use dlmalloc::Dlmalloc;

/// The program's global allocator.
pub struct Allocator {
    /// 0 free, 1 taken, 2 taken and somebody may be asleep.
    lock: AtomicU32,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: `heap` is touched only by the holder of `lock`.
unsafe impl Sync for Allocator {}

/// Holds the heap's lock; see [`Allocator::lock`].
pub struct Guard<'a>(&'a Allocator);

impl Allocator {
    /// An empty heap.
    pub const fn new() -> Self {
        Self { lock: AtomicU32::new(0), heap: UnsafeCell::new(Dlmalloc::new()) }
    }

    /// Keeps every other thread out of the heap, so that the process can be forked with the heap in
    /// order. The holder must not allocate or free.
    pub fn lock(&self) -> Guard<'_> {
        // The three-state futex lock of Drepper, "Futexes Are Tricky".
        if self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.lock.swap(2, Ordering::Acquire) != 0 {
                futex(&self.lock, libc::FUTEX_WAIT, 2);
            }
        }
        Guard(self)
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.0.lock.swap(0, Ordering::Release) == 2 {
            futex(&self.0.lock, libc::FUTEX_WAKE, 1);
        }
    }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word outlives the call; there is no timeout.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            std::ptr::null::<libc::timespec>(),
        );
    }
}

// SAFETY: dlmalloc keeps GlobalAlloc's contract; the lock makes it exclusive.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _guard = self.lock();
        // SAFETY: the lock is held; the layout is the caller's promise.
        unsafe { (*self.heap.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _guard = self.lock();
        // SAFETY: as in alloc.
        unsafe { (*self.heap.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let _guard = self.lock();
        // SAFETY: as in alloc; `ptr` came from here.
        unsafe { (*self.heap.get()).free(ptr, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _guard = self.lock();
        // SAFETY: as in dealloc.
        unsafe { (*self.heap.get()).realloc(ptr, layout.size(), layout.align(), size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_heap() {
        static HEAP: Allocator = Allocator::new();
        let work = |seed: usize| {
            let mut held = Vec::new();
            for i in 0..2000usize {
                let layout = Layout::from_size_align(1 + (i * 37 + seed) % 600, 16).unwrap();
                // SAFETY: allocated and freed with the same layout, written within it.
                unsafe {
                    let p = HEAP.alloc(layout);
                    assert!(!p.is_null());
                    p.write_bytes(seed as u8, layout.size());
                    held.push((p as usize, layout));
                }
            }
            for (p, layout) in held {
                let p = p as *mut u8;
                // SAFETY: allocated above with this layout.
                unsafe {
                    assert!((0..layout.size()).all(|k| *p.add(k) == seed as u8));
                    HEAP.dealloc(p, layout);
                }
            }
        };
        std::thread::scope(|s| {
            for seed in 1..5 {
                s.spawn(move || work(seed));
            }
        });
    }

    #[test]
    fn the_guard_keeps_others_out() {
        static HEAP: Allocator = Allocator::new();
        let guard = HEAP.lock();
        let other = std::thread::spawn(|| {
            // SAFETY: a plain allocation that is not used.
            unsafe { HEAP.alloc(Layout::new::<u64>()) as usize }
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!other.is_finished());
        drop(guard);
        assert_ne!(other.join().unwrap(), 0);
    }
}
