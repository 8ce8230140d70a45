//! `struct epoll_event`: packed on x86_64 only (uapi/linux/eventpoll.h, EPOLL_PACKED).

use super::layout;

/// The x86_64 form.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestEpollEvent {
    pub events: u32,
    pub data: u64,
}
layout!(GuestEpollEvent, 12, data @ 4);

/// The arm64 form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostEpollEvent {
    pub events: u32,
    pub pad: u32,
    pub data: u64,
}
layout!(HostEpollEvent, 16, data @ 8);

impl From<GuestEpollEvent> for HostEpollEvent {
    fn from(event: GuestEpollEvent) -> Self {
        Self { events: event.events, pad: 0, data: event.data }
    }
}

impl From<HostEpollEvent> for GuestEpollEvent {
    fn from(event: HostEpollEvent) -> Self {
        Self { events: event.events, data: event.data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_the_hosts(events: u32, data: u64) {
            let host = HostEpollEvent { events, pad: 0, data };
            prop_assert_eq!(HostEpollEvent::from(GuestEpollEvent::from(host)), host);
        }

        #[test]
        fn round_trip(events: u32, data: u64) {
            let guest = GuestEpollEvent { events, data };
            prop_assert_eq!(GuestEpollEvent::from(HostEpollEvent::from(guest)), guest);
        }
    }
}
