//! What a process is told about itself and the machine.

use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;
use crate::{guest, personality};

/// getpgrp(2)
pub fn getpgrp(task: &mut Task, _: [u64; 6]) -> SysResult {
    task.host_call(nr::getpgid, [0; 6])
}

/// gettid(2), without the arguments that only the translator gives it (see [`crate::seccomp`]).
pub fn gettid(task: &mut Task, _: [u64; 6]) -> SysResult {
    task.host_call(nr::gettid, [0; 6])
}

/// `struct new_utsname`: six strings.
const UTS_FIELD: usize = 65;
const UTS_MACHINE: usize = 4;

/// uname(2)
pub fn uname(task: &mut Task, [buf, ..]: [u64; 6]) -> SysResult {
    let mut uts = [[0u8; UTS_FIELD]; 6];
    task.host_call(nr::uname, [uts.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    uts[UTS_MACHINE] = machine(&uts[UTS_MACHINE], personality::is_linux32(task));
    guest::write(buf, &uts)?;
    Ok(0)
}

/// What x86_64 calls the machine. Under PER_LINUX32 (setarch(8)) either kernel names its 32-bit sibling.
fn machine(host: &[u8; UTS_FIELD], is_linux32: bool) -> [u8; UTS_FIELD] {
    let is_linux32 = is_linux32 || host.starts_with(b"armv8");
    let name: &[u8] = if is_linux32 { b"i686" } else { b"x86_64" };
    let mut field = [0; UTS_FIELD];
    field[..name.len()].copy_from_slice(name);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_x86() {
        let field = |name: &[u8]| {
            let mut field = [0; UTS_FIELD];
            field[..name.len()].copy_from_slice(name);
            field
        };
        assert_eq!(machine(&field(b"aarch64"), false), field(b"x86_64"));
        assert_eq!(machine(&field(b"armv8l"), false), field(b"i686"));
        assert_eq!(machine(&field(b"aarch64"), true), field(b"i686"));
    }
}
