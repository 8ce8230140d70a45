//! set_robust_list(2) and get_robust_list(2). At the end of a thread the kernel follows the list in the guest's memory on
//! its own; until then all it does with the head is to give it back.

use translator::state::reg;

use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

/// set_robust_list(2). A head that no guest can have is another address for the host's kernel, which may look at it; the
/// guest gets back its own.
pub fn set(task: &mut Task, args: [u64; 6]) -> SysResult {
    let result = task.host_call(nr::set_robust_list, args)?;
    task.robust_list = task.cpu.gpr[reg::RDI];
    Ok(result)
}

/// get_robust_list(2)
pub fn get(task: &mut Task, args: [u64; 6]) -> SysResult {
    let result = task.host_call(nr::get_robust_list, args)?;
    let [pid, head, ..] = args;
    if [0, task.tid].contains(&(pid as i32)) {
        guest::write(head, &task.robust_list)?;
    }
    Ok(result)
}
