//! bpf(2): addresses in its attributes, and in what they point to.

use super::{Array, Offsets, check_size};
use crate::abi::errno;
use crate::guest;
use crate::host::SysResult;
use crate::proc_fs;
use crate::table::host as nr;
use crate::task::Task;

/// The addresses in `union bpf_attr`, by the command (linux/bpf.h).
const COMMANDS: &[(u64, Offsets)] = &[
    (1, &[8, 16]),                       // BPF_MAP_LOOKUP_ELEM
    (2, &[8, 16]),                       // BPF_MAP_UPDATE_ELEM
    (3, &[8]),                           // BPF_MAP_DELETE_ELEM
    (4, &[8, 16]),                       // BPF_MAP_GET_NEXT_KEY
    (5, &[8, 16, 32, 80, 96, 120, 128]), // BPF_PROG_LOAD
    (6, &[0]),                           // BPF_OBJ_PIN
    (7, &[0]),                           // BPF_OBJ_GET
    (10, &[16, 24, 48, 56]),             // BPF_PROG_TEST_RUN
    (GET_INFO, &[8]),                    // BPF_OBJ_GET_INFO_BY_FD
    (16, &[16, 32, 40, 48]),             // BPF_PROG_QUERY
    (17, &[0]),                          // BPF_RAW_TRACEPOINT_OPEN
    (18, &[0, 8]),                       // BPF_BTF_LOAD
    (20, &[16]),                         // BPF_TASK_FD_QUERY
    (21, &[8, 16]),                      // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    (24, &[0, 8, 16, 24]),               // BPF_MAP_LOOKUP_BATCH
    (25, &[0, 8, 16, 24]),               // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    (26, &[0, 8, 16, 24]),               // BPF_MAP_UPDATE_BATCH
    (27, &[0, 8, 16, 24]),               // BPF_MAP_DELETE_BATCH
];

const GET_INFO: u64 = 15;
/// BPF_LINK_CREATE
const LINK: u64 = 28;

/// The addresses in the attributes of BPF_LINK_CREATE, by `attach_type`; of others the same words are numbers.
const LINKS: &[(u32, Offsets)] = &[
    (28, &[16]),             // BPF_TRACE_ITER
    (42, &[24, 32, 40]),     // BPF_TRACE_KPROBE_MULTI
    (48, &[16, 24, 32, 40]), // BPF_TRACE_UPROBE_MULTI
    (56, &[24, 32, 40]),     // BPF_TRACE_KPROBE_SESSION
    (57, &[16, 24, 32, 40]), // BPF_TRACE_UPROBE_SESSION
];

/// The addresses in what BPF_OBJ_GET_INFO_BY_FD fills, by the kernel's name of the descriptor.
const INFORMATION: &[(&str, Offsets)] = &[
    // `struct bpf_prog_info`
    ("anon_inode:bpf-prog", &[24, 32, 56, 112, 120, 136, 152, 160, 184]),
    // `struct bpf_btf_info`
    ("anon_inode:btf", &[0, 16]),
    // `struct bpf_link_info`: a name, in those links that have one.
    ("anon_inode:bpf_link", &[16]),
];

/// bpf(2)
pub fn bpf(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [command, attributes, size, ..] = args;
    check_size(size)?;
    if command == GET_INFO && is_bad_information(attributes) {
        return Err(errno::EFAULT);
    }
    let structure = Array::of_one(size as usize, addresses(command, attributes));
    structure.pass_both_ways(task, nr::bpf, args, 1)
}

fn addresses(command: u64, attributes: u64) -> Offsets {
    const ATTACH_TYPE: u64 = 8;
    let find =
        |list: &[(u64, Offsets)]| list.iter().find(|(known, _)| *known == command).map(|row| row.1);
    if command != LINK {
        return find(COMMANDS).unwrap_or_default();
    }
    let attach_type = guest::read::<u32>(attributes.wrapping_add(ATTACH_TYPE)).unwrap_or_default();
    let found = LINKS.iter().find(|(known, _)| *known == attach_type);
    found.map(|row| row.1).unwrap_or_default()
}

/// Whether the kernel would write information on a descriptor to where no guest has memory.
fn is_bad_information(attributes: u64) -> bool {
    let Ok([fd, len]) = guest::read::<[u32; 2]>(attributes) else { return false };
    let Ok(information) = guest::read::<u64>(attributes.wrapping_add(8)) else { return false };
    let any_bad = |offsets: Offsets| {
        let known = offsets.iter().filter(|&&at| at + 8 <= len as usize);
        known.clone().any(|&at| {
            let word = guest::read::<u64>(information.wrapping_add(at as u64));
            word.is_ok_and(|word| guest::for_kernel(word) != word)
        })
    };
    // The name is asked for when something is wrong with it as with any of them.
    let of =
        |(name, offsets): &(&str, Offsets)| any_bad(offsets) && proc_fs::is_link(fd.into(), name);
    INFORMATION.iter().any(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words() {
        let all = COMMANDS.iter().map(|row| row.1).chain(LINKS.iter().map(|row| row.1));
        for offsets in all.chain(INFORMATION.iter().map(|row| row.1)) {
            assert!(offsets.iter().all(|at| at % 8 == 0));
        }
        assert!(COMMANDS.is_sorted_by_key(|(command, _)| *command));
    }

    #[test]
    fn links_by_what_they_attach_to() {
        let attributes = |attach_type: u64| [0, attach_type, 0, 0];
        let of = |attributes: [u64; 4]| addresses(LINK, attributes.as_ptr() as u64);
        assert_eq!(of(attributes(42)), [24, 32, 40]);
        assert_eq!(of(attributes(2)), [0usize; 0]);
        assert_eq!(addresses(3, 0), [8]);
        assert_eq!(addresses(14, 0), [0usize; 0]);
    }

    #[test]
    fn information_is_looked_into_by_what_it_is_on() {
        let mut information = [0u64; 29];
        information[3] = 1 << 47;
        // Standard input is no program.
        let attributes = [232u64 << 32, information.as_ptr() as u64];
        assert!(!is_bad_information(attributes.as_ptr() as u64));
        assert!(!is_bad_information(1 << 47));
    }
}
