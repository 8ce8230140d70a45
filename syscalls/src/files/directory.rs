//! Directories: getdents64(2), and getdents(2) by way of it. In /proc the translator's own descriptors are not listed.

use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;
use crate::{fds, guest, proc_fs};

/// Offset of `d_reclen`, in both forms.
const RECLEN: usize = 16;
/// Offset of `d_type` in the 64-bit form; the old one has it in the record's last byte.
const TYPE64: usize = 18;
/// Offsets of the name.
const NAME: usize = 18;
const NAME64: usize = 19;

/// getdents64(2)
pub fn getdents64(task: &mut Task, [fd, dirents, count, ..]: [u64; 6]) -> SysResult {
    loop {
        let filled = task.host_call(nr::getdents64, [fd, dirents, count, 0, 0, 0])?;
        if filled == 0 || !proc_fs::lists_descriptors(fd) {
            return Ok(filled);
        }
        // Nothing at all would be the end.
        match without_kept(dirents, filled)? {
            0 => {}
            left => return Ok(left),
        }
    }
}

/// Takes the records of the translator's descriptors out of a list; how much is left.
fn without_kept(dirents: u64, filled: u64) -> Result<u64, Errno> {
    let mut records = vec![0; filled as usize];
    guest::read_bytes(dirents, &mut records)?;
    let mut left = Vec::new();
    let mut rest = &records[..];
    while rest.len() > NAME64 {
        let length = usize::from(u16::from_ne_bytes([rest[RECLEN], rest[RECLEN + 1]]));
        let Some((record, behind)) = rest.split_at_checked(length.max(NAME64)) else { break };
        let name = record[NAME64..].split(|&byte| byte == 0).next().unwrap_or_default();
        let number = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        if !number.is_some_and(fds::is_kept) {
            left.extend_from_slice(record);
        }
        rest = behind;
    }
    guest::write_bytes(dirents, &left)?;
    Ok(left.len() as u64)
}

/// getdents(2)
///
/// A record takes the same room in both forms: 20 bytes and the name, rounded up to 8.
pub fn getdents(task: &mut Task, [fd, dirents, count, ..]: [u64; 6]) -> SysResult {
    let filled = getdents64(task, [fd, dirents, count, 0, 0, 0])?;
    if filled > 0 {
        convert(dirents, filled)?;
    }
    Ok(filled)
}

/// Rewrites the records in the guest's buffer in place.
fn convert(dirents: u64, filled: u64) -> Result<(), Errno> {
    let mut records = vec![0; filled as usize];
    guest::read_bytes(dirents, &mut records)?;
    let mut rest = &mut records[..];
    while rest.len() > NAME64 {
        let length = usize::from(u16::from_ne_bytes([rest[RECLEN], rest[RECLEN + 1]]));
        if !(NAME64..=rest.len()).contains(&length) {
            break;
        }
        let (record, behind) = rest.split_at_mut(length);
        let kind = record[TYPE64];
        record.copy_within(NAME64.., NAME);
        record[length - 1] = kind;
        rest = behind;
    }
    guest::write_bytes(dirents, &records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record64(ino: u64, off: u64, kind: u8, name: &[u8]) -> Vec<u8> {
        let length = (NAME64 + name.len() + 1).next_multiple_of(8);
        let mut record = [ino.to_ne_bytes(), off.to_ne_bytes()].concat();
        record.extend((length as u16).to_ne_bytes());
        record.push(kind);
        record.extend(name);
        record.resize(length, 0);
        record
    }

    #[test]
    fn descriptors_of_the_translators_are_not_listed() {
        let kept = fds::keep(2).unwrap();
        let record = |name: &str| record64(1, 2, 10, name.as_bytes());
        let others = [record("."), record("0"), record("x1"), record("7")];
        let number = record(&kept.to_string());
        let mut buffer =
            [&others[0], &number, &others[1], &others[2], &number, &others[3], &number]
                .map(|record| &record[..])
                .concat();
        let addr = buffer.as_mut_ptr() as u64;
        let left = without_kept(addr, buffer.len() as u64).unwrap() as usize;
        assert_eq!(buffer[..left], others.concat());
        assert_eq!(without_kept(number.as_ptr() as u64, number.len() as u64), Ok(0));
        fds::release(kept);
    }

    proptest! {
        #[test]
        fn old_records_say_the_same(
            entries in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u8>(), "[a-z.]{1,40}"), 1..20),
        ) {
            let records = entries.iter().map(|(ino, off, kind, name)| record64(*ino, *off, *kind, name.as_bytes()));
            let mut buffer: Vec<u8> = records.flatten().collect();
            convert(buffer.as_mut_ptr() as u64, buffer.len() as u64).unwrap();
            let mut rest = &buffer[..];
            for (ino, off, kind, name) in &entries {
                let length = usize::from(u16::from_ne_bytes([rest[RECLEN], rest[RECLEN + 1]]));
                prop_assert_eq!(&rest[..8], &ino.to_ne_bytes());
                prop_assert_eq!(&rest[8..16], &off.to_ne_bytes());
                prop_assert_eq!(rest[length - 1], *kind);
                let end = NAME + name.len();
                prop_assert_eq!((&rest[NAME..end], rest[end]), (name.as_bytes(), 0));
                rest = &rest[length..];
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn records_are_rewritten_in_place() {
        let names: [&[u8]; 4] = [b".", b"five5", b"exactly12chr", b"a longer file name.txt"];
        let mut buffer: Vec<u8> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            buffer.extend(record64(100 + i as u64, i as u64, 4 + i as u8, name));
        }
        convert(buffer.as_mut_ptr() as u64, buffer.len() as u64).unwrap();
        let mut at = 0;
        for (i, name) in names.iter().enumerate() {
            let length =
                usize::from(u16::from_ne_bytes([buffer[at + RECLEN], buffer[at + RECLEN + 1]]));
            assert_eq!(&buffer[at + NAME..][..name.len() + 1], [name, &b"\0"[..]].concat());
            assert_eq!(buffer[at + length - 1], 4 + i as u8);
            // include/linux/dirent.h and fs/readdir.c: the old record's length is the same.
            assert_eq!(length, (NAME + name.len() + 2).next_multiple_of(8));
            at += length;
        }
        assert_eq!(at, buffer.len());
    }
}
