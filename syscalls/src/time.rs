//! Clocks, which the host's vDSO tells, and alarms that arm64 has only in newer forms.

use crate::abi::time::{Itimerval, Timespec, Timeval};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::host_vdso;
use crate::table::host as nr;
use crate::task::Task;

const CLOCK_REALTIME: u64 = 0;
const CLOCK_REALTIME_COARSE: u64 = 5;
const ITIMER_REAL: u64 = 0;

/// What a clock says.
fn now(task: &mut Task, clock: u64) -> Result<Timespec, Errno> {
    if let Some(told) = host_vdso::clock_gettime(clock as i32) {
        return told.map_err(|error| Errno(-error));
    }
    let mut now = Timespec::default();
    task.host_call(nr::clock_gettime, [clock, &raw mut now as u64, 0, 0, 0, 0])?;
    Ok(now)
}

/// clock_gettime(2)
pub fn clock_gettime(task: &mut Task, [clock, place, ..]: [u64; 6]) -> SysResult {
    let now = now(task, clock)?;
    guest::write(place, &now)?;
    Ok(0)
}

/// gettimeofday(2). Hardly anyone asks for the time zone.
pub fn gettimeofday(task: &mut Task, [place, zone, ..]: [u64; 6]) -> SysResult {
    if zone != 0 {
        return task.host_call(nr::gettimeofday, [place, zone, 0, 0, 0, 0]);
    }
    if place != 0 {
        let now = now(task, CLOCK_REALTIME)?;
        guest::write(place, &Timeval { sec: now.sec, usec: now.nsec / 1000 })?;
    }
    Ok(0)
}

/// time(2)
pub fn time(task: &mut Task, [tloc, ..]: [u64; 6]) -> SysResult {
    let now = now(task, CLOCK_REALTIME_COARSE)?;
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
