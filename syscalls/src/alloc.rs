//! The heap of the translator itself. glibc's malloc keeps state for each thread that only its own
//! thread library sets up and tears down; guest threads are made by a bare clone(2), so the heap
//! is a dlmalloc under a lock that fork can take.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

use dlmalloc::Dlmalloc;

/// The type of the program's global allocator: the one heap of the process.
#[derive(Default)]
pub struct Allocator;

impl Allocator {
    /// For the `#[global_allocator]` declaration.
    pub const fn new() -> Self {
        Self
    }
}

/// The heap behind every [`Allocator`].
static HEAP: Heap = Heap::new();

/// Keeps every other thread out of the heap, so that the process can be forked with the heap in
/// order. The holder must not allocate or free.
pub fn lock() -> Guard<'static> {
    HEAP.lock()
}

struct Heap {
    /// 0 free, 1 taken, 2 taken and somebody may be asleep.
    lock: AtomicU32,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: `heap` is touched only by the holder of `lock`.
unsafe impl Sync for Heap {}

/// Holds the heap's lock; see [`lock`].
pub struct Guard<'a>(&'a Heap);

impl Heap {
    const fn new() -> Self {
        Self { lock: AtomicU32::new(0), heap: UnsafeCell::new(Dlmalloc::new()) }
    }

    fn lock(&self) -> Guard<'_> {
        // The three-state futex lock of Drepper, "Futexes Are Tricky".
        if self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.lock.swap(2, Ordering::Acquire) != 0 {
                futex(&self.lock, libc::FUTEX_WAIT, 2);
            }
        }
        Guard(self)
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
        let guard = lock();
        // SAFETY: the lock is held; the layout is the caller's promise.
        unsafe { (*guard.0.heap.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let guard = lock();
        // SAFETY: as in alloc.
        unsafe { (*guard.0.heap.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let guard = lock();
        // SAFETY: as in alloc; `ptr` came from here.
        unsafe { (*guard.0.heap.get()).free(ptr, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let guard = lock();
        // SAFETY: as in dealloc.
        unsafe { (*guard.0.heap.get()).realloc(ptr, layout.size(), layout.align(), size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_heap() {
        let work = |seed: usize| {
            let mut held = Vec::new();
            for i in 0..2000usize {
                let layout = Layout::from_size_align(1 + (i * 37 + seed) % 600, 16).unwrap();
                // SAFETY: allocated and freed with the same layout, written within it.
                unsafe {
                    let p = Allocator.alloc(layout);
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
                    Allocator.dealloc(p, layout);
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
        static OTHER: Heap = Heap::new();
        let guard = OTHER.lock();
        let other = std::thread::spawn(|| drop(OTHER.lock()));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!other.is_finished());
        drop(guard);
        other.join().unwrap();
    }
}
