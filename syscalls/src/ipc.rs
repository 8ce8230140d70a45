//! System V semaphores and POSIX message queues.

use crate::abi::open_flags;
use crate::abi::sem::{GuestSemidDs, HostSemidDs};
use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

const IPC_SET: u64 = 1;
const IPC_STAT: u64 = 2;
const SEM_STAT: u64 = 18;
const SEM_STAT_ANY: u64 = 20;

/// semctl(2)
pub fn semctl(task: &mut Task, [id, index, cmd, arg, ..]: [u64; 6]) -> SysResult {
    match cmd {
        IPC_SET => {
            let ds = HostSemidDs::from(guest::read::<GuestSemidDs>(arg)?);
            task.host_call(nr::semctl, [id, index, cmd, &raw const ds as u64, 0, 0])
        }
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let mut ds = HostSemidDs::default();
            let args = [id, index, cmd, &raw mut ds as u64, 0, 0];
            let result = task.host_call(nr::semctl, args)?;
            guest::write(arg, &GuestSemidDs::from(ds))?;
            Ok(result)
        }
        _ => task.host_call(nr::semctl, [id, index, cmd, arg, 0, 0]),
    }
}

/// mq_open(2)
pub fn mq_open(task: &mut Task, [name, flags, mode, attr, ..]: [u64; 6]) -> SysResult {
    task.host_call(nr::mq_open, [name, open_flags::to_host(flags), mode, attr, 0, 0])
}
