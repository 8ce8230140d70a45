//! membarrier(2). Translated code orders memory by instructions of the host, so that the host's barriers are the
//! guest's. Without rseq(2) there are no commands about it.

use crate::abi::errno;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

const QUERY: u64 = 0;
/// MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ and its registration.
const RSEQ: u64 = 1 << 7 | 1 << 8;

/// membarrier(2)
pub fn membarrier(task: &mut Task, [command, flags, cpu, ..]: [u64; 6]) -> SysResult {
    if command & RSEQ != 0 {
        return Err(errno::EINVAL);
    }
    let result = task.host_call(nr::membarrier, [command, flags, cpu, 0, 0, 0])?;
    Ok(if command == QUERY { result & !RSEQ } else { result })
}
