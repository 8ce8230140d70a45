//! Writes the test program: a static x86_64 program that says so, waits until its standard input ends (so that
//! one can look at its process), and exits with status 0.

use crate::elf::{EHDR_SIZE, ET_EXEC, Image, PHDR_SIZE, file_header, program_header};

/// Where it is linked.
const BASE: u64 = 0x40_0000;
const CODE_OFFSET: usize = EHDR_SIZE + 2 * PHDR_SIZE;
const PAGE: usize = 4096;
/// What it prints.
const MESSAGE: &[u8] = b"x86_64 code is running\n";

/// The instructions; they end where the message begins.
#[rustfmt::skip]
const CODE: [u8; 51] = [
    0xb8, 1, 0, 0, 0,                           // mov eax, 1 (write)
    0xbf, 1, 0, 0, 0,                           // mov edi, 1
    0x48, 0x8d, 0x35, 34, 0, 0, 0,              // lea rsi, [rip + message]
    0xba, MESSAGE.len() as u8, 0, 0, 0,         // mov edx, length
    0x0f, 0x05,                                 // syscall
    0x31, 0xc0,                                 // xor eax, eax (read)
    0x31, 0xff,                                 // xor edi, edi
    0x48, 0x8d, 0x74, 0x24, 0x80,               // lea rsi, [rsp - 128]
    0xba, 1, 0, 0, 0,                           // mov edx, 1
    0x0f, 0x05,                                 // syscall
    0xb8, 0xe7, 0, 0, 0,                        // mov eax, 231 (exit_group)
    0x31, 0xff,                                 // xor edi, edi
    0x0f, 0x05,                                 // syscall
    0x0f, 0x0b,                                 // ud2
];

/// The file: headers, instructions and message in one segment.
pub fn image() -> Vec<u8> {
    let mut out = Image(Vec::new());
    file_header(&mut out, ET_EXEC, BASE + CODE_OFFSET as u64, 2);
    let size = CODE_OFFSET + CODE.len() + MESSAGE.len();
    program_header(&mut out, [1, 5], BASE, 0..size, PAGE); // PT_LOAD, PF_R | PF_X
    program_header(&mut out, [0x6474_e551, 6], 0, 0..0, 16); // PT_GNU_STACK, PF_R | PF_W
    out.bytes(&CODE);
    out.bytes(MESSAGE);
    out.0
}
