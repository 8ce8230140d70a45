//! Resource limits. RLIMIT_AS and RLIMIT_DATA would bind the translator's own reservations along
//! with the guest: what the guest sets for itself is remembered and reported, and not given to the kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::abi::{errno, layout};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;

const RLIMIT_DATA: u64 = 2;
const RLIMIT_AS: u64 = 9;

/// `struct rlimit64`, which is `struct rlimit` on both architectures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rlimit {
    pub cur: u64,
    pub max: u64,
}
layout!(Rlimit, 16, max @ 8);

/// A limit the guest set for itself.
struct Remembered {
    set: AtomicBool,
    cur: AtomicU64,
    max: AtomicU64,
}

impl Remembered {
    const fn nothing() -> Self {
        Self { set: AtomicBool::new(false), cur: AtomicU64::new(0), max: AtomicU64::new(0) }
    }

    fn get(&self) -> Option<Rlimit> {
        self.set.load(Ordering::Acquire).then(|| Rlimit {
            cur: self.cur.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        })
    }

    fn put(&self, limit: Rlimit) {
        self.cur.store(limit.cur, Ordering::Relaxed);
        self.max.store(limit.max, Ordering::Relaxed);
        self.set.store(true, Ordering::Release);
    }
}

static DATA: Remembered = Remembered::nothing();
static ADDRESS_SPACE: Remembered = Remembered::nothing();

/// getrlimit(2): without a place for it, only the resource is looked at.
pub fn getrlimit(task: &mut Task, [resource, limit, ..]: [u64; 6]) -> SysResult {
    let limit = if limit == 0 { guest::NOWHERE } else { limit };
    prlimit64(task, [0, resource, 0, limit, 0, 0])
}

/// setrlimit(2): without a limit, not even that.
pub fn setrlimit(task: &mut Task, [resource, limit, ..]: [u64; 6]) -> SysResult {
    if limit == 0 {
        return Err(errno::EFAULT);
    }
    prlimit64(task, [0, resource, limit, 0, 0, 0])
}

/// prlimit64(2)
pub fn prlimit64(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [pid, resource, new, old, ..] = args;
    let remembered = match resource {
        RLIMIT_DATA => &DATA,
        RLIMIT_AS => &ADDRESS_SPACE,
        _ => return task.host_call(nr::prlimit64, args),
    };
    if pid != 0 && task.host_call(nr::getpid, [0; 6])? != pid {
        return task.host_call(nr::prlimit64, args);
    }
    let current = match remembered.get() {
        Some(limit) => limit,
        None => from_kernel(task, resource)?,
    };
    if let Some(new) = guest::read_opt::<Rlimit>(new)? {
        check(task, current, new)?;
        remembered.put(new);
    }
    if old != 0 {
        guest::write(old, &current)?;
    }
    Ok(0)
}

fn from_kernel(task: &mut Task, resource: u64) -> Result<Rlimit, Errno> {
    let mut limit = Rlimit::default();
    task.host_call(nr::prlimit64, [0, resource, 0, &raw mut limit as u64, 0, 0])?;
    Ok(limit)
}

/// The kernel's rules for a new limit (do_prlimit).
fn check(task: &mut Task, current: Rlimit, new: Rlimit) -> Result<(), Errno> {
    if new.cur > new.max {
        return Err(errno::EINVAL);
    }
    if new.max > current.max && !may_raise(task) {
        return Err(errno::EPERM);
    }
    Ok(())
}

/// Whether the thread has CAP_SYS_RESOURCE (capget(2)).
fn may_raise(task: &mut Task) -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_RESOURCE: u32 = 24;
    let header = [VERSION_3, 0];
    // Effective, permitted and inheritable, twice 32 bits.
    let mut data = [[0u32; 3]; 2];
    let args = [header.as_ptr() as u64, data.as_mut_ptr() as u64, 0, 0, 0, 0];
    task.host_call(nr::capget, args).is_ok() && data[0][0] >> CAP_SYS_RESOURCE & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_set_is_the_limit_read() {
        let mut task = Task::for_test();
        DATA.put(Rlimit { cur: 5, max: 10 });
        let new = Rlimit { cur: 3, max: 7 };
        let mut old = Rlimit::default();
        let args = [0, RLIMIT_DATA, &raw const new as u64, &raw mut old as u64, 0, 0];
        assert_eq!(prlimit64(&mut task, args), Ok(0));
        assert_eq!(old, Rlimit { cur: 5, max: 10 });
        assert_eq!(getrlimit(&mut task, [RLIMIT_DATA, &raw mut old as u64, 0, 0, 0, 0]), Ok(0));
        assert_eq!(old, new);
        assert_eq!(getrlimit(&mut task, [RLIMIT_DATA, 0, 0, 0, 0, 0]), Err(errno::EFAULT));
        assert_eq!(setrlimit(&mut task, [u64::MAX, 0, 0, 0, 0, 0]), Err(errno::EFAULT));
        let wrong = Rlimit { cur: 8, max: 7 };
        let args = [RLIMIT_DATA, &raw const wrong as u64, 0, 0, 0, 0];
        assert_eq!(setrlimit(&mut task, args), Err(errno::EINVAL));
    }
}
