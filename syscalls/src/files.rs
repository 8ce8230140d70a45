//! Files: opening, names, descriptors, directories, times.

mod descriptors;
mod directory;
mod filesystems;
mod names;
mod open;
mod times;

pub use descriptors::*;
pub use directory::{getdents, getdents64};
pub use filesystems::{sysfs, ustat};
pub use names::*;
pub use open::*;
pub use times::{futimesat, utime, utimes};
