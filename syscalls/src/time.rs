//! Clocks and alarms that arm64 has only in newer forms.

use crate::abi::time::{Itimerval, Timespec, Timeval};
use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

const CLOCK_REALTIME_COARSE: u64 = 5;
const ITIMER_REAL: u64 = 0;

/// time(2)
pub fn time(task: &mut Task, [tloc, ..]: [u64; 6]) -> SysResult {
    let mut now = Timespec::default();
    task.host_call(nr::clock_gettime, [CLOCK_REALTIME_COARSE, &raw mut now as u64, 0, 0, 0, 0])?;
    if tloc != 0 {
        guest::write(tloc, &now.sec)?;
    }
    Ok(now.sec as u64)
}

/// alarm(2)
pub fn alarm(task: &mut Task, [seconds, ..]: [u64; 6]) -> SysResult {
    let value = Timeval { sec: seconds as i64, usec: 0 };
    let new = Itimerval { value, ..Itimerval::default() };
    let mut old = Itimerval::default();
    let args = [ITIMER_REAL, &raw const new as u64, &raw mut old as u64, 0, 0, 0];
    task.host_call(nr::setitimer, args)?;
    Ok(seconds_left(old.value))
}

/// Rounded, but never down to 0 (alarm_setitimer of kernel/time/itimer.c).
fn seconds_left(left: Timeval) -> u64 {
    let up = left.usec >= 500_000 || (left.sec == 0 && left.usec != 0);
    left.sec as u64 + u64::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_alarm_never_reads_as_none() {
        assert_eq!(seconds_left(Timeval { sec: 0, usec: 0 }), 0);
        assert_eq!(seconds_left(Timeval { sec: 0, usec: 1 }), 1);
        assert_eq!(seconds_left(Timeval { sec: 4, usec: 499_999 }), 4);
        assert_eq!(seconds_left(Timeval { sec: 4, usec: 500_000 }), 5);
    }
}
