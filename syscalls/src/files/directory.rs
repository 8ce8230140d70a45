//! getdents(2) by way of getdents64(2).

use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;

/// Offset of `d_reclen`, in both forms.
const RECLEN: usize = 16;
/// Offset of `d_type` in the 64-bit form; the old one has it in the record's last byte.
const TYPE64: usize = 18;
/// Offsets of the name.
const NAME: usize = 18;
const NAME64: usize = 19;

/// getdents(2)
///
/// A record takes the same room in both forms: 20 bytes and the name, rounded up to 8.
pub fn getdents(task: &mut Task, [fd, dirents, count, ..]: [u64; 6]) -> SysResult {
    let filled = task.host_call(nr::getdents64, [fd, dirents, count, 0, 0, 0])?;
    convert(dirents, filled)?;
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
