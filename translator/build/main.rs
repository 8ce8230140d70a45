//! Writes the decoder's tables, out of what iced-x86 says of each opcode and how it decodes it, and the mnemonic of each
//! instruction form.

mod form;
#[path = "../src/decode/layout.rs"]
#[allow(dead_code)] // the half that reads the tables
mod layout;
mod probe;
mod tree;

use std::fmt::Write;
use std::path::Path;

use form::Forms;
use layout::{Escape, FORMS, Form, NODES, Node, REPEAT_F2, REPEAT_F3, key, map, prefix};
use probe::Opcode;
use tree::Tree;

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=src/decode/layout.rs");
    let all = probe::instructions();
    let mut forms = Forms::default();
    let mut tree = Tree::new(map::END as usize);
    for base in (0..map::END).step_by(0x100) {
        for byte in 0..=0xff_u8 {
            let node = match (base, byte) {
                (map::ONE_BYTE, 0x0f) => Node::escape(Escape::Map(map::MAP_0F)),
                (map::MAP_0F, 0x38) => Node::escape(Escape::Map(map::MAP_0F38)),
                (map::MAP_0F, 0x3a) => Node::escape(Escape::Map(map::MAP_0F3A)),
                (map::ONE_BYTE, 0xc4) => Node::escape(Escape::Vex3),
                (map::ONE_BYTE, 0xc5) => Node::escape(Escape::Vex2),
                (map::ONE_BYTE, 0x40..=0x4f) => Node::escape(Escape::Rex),
                (map::ONE_BYTE, 0x26) => Node::prefix(7 << prefix::SEGMENT, 1 << prefix::SEGMENT),
                (map::ONE_BYTE, 0x2e) => Node::prefix(7 << prefix::SEGMENT, 2 << prefix::SEGMENT),
                (map::ONE_BYTE, 0x36) => Node::prefix(7 << prefix::SEGMENT, 3 << prefix::SEGMENT),
                (map::ONE_BYTE, 0x3e) => Node::prefix(7 << prefix::SEGMENT, 4 << prefix::SEGMENT),
                (map::ONE_BYTE, 0x64) => Node::prefix(3 << prefix::FS_GS, 1 << prefix::FS_GS),
                (map::ONE_BYTE, 0x65) => Node::prefix(3 << prefix::FS_GS, 2 << prefix::FS_GS),
                (map::ONE_BYTE, 0x66) => Node::prefix(0, prefix::OPERAND16),
                (map::ONE_BYTE, 0x67) => Node::prefix(0, prefix::ADDRESS32),
                (map::ONE_BYTE, 0xf0) => Node::prefix(0, prefix::LOCK),
                (map::ONE_BYTE, 0xf2) => Node::prefix(prefix::REPEAT, REPEAT_F2 << key::REPEAT),
                (map::ONE_BYTE, 0xf3) => Node::prefix(prefix::REPEAT, REPEAT_F3 << key::REPEAT),
                _ => {
                    let instructions = all.get(&(base + u32::from(byte))).map_or(&[][..], |i| i);
                    tree.build(&Opcode { map: base, byte, instructions }.meanings(&mut forms))
                }
            };
            tree.nodes[(base + u32::from(byte)) as usize] = node;
        }
    }
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("decode_tables.rs"), source(&tree.nodes, &forms.forms))
        .expect("OUT_DIR is writable");
    std::fs::write(Path::new(&out).join("entries.rs"), entries()).expect("OUT_DIR is writable");
}

/// For each instruction form its mnemonic's number; of those that have a row of their own in the instruction table, whose
/// mnemonic has another, a number behind the mnemonics.
fn entries() -> String {
    use iced_x86::Code::*;
    let mut text = String::from("static ENTRIES: &[u16] = &[");
    for code in iced_x86::Code::values() {
        let entry = match code {
            Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 | Popw_FS | Popq_FS | Popw_GS
            | Popq_GS => "SEGMENT_LOAD as u16".into(),
            Mov_rm16_Sreg | Mov_r32m16_Sreg | Mov_r64m16_Sreg | Mov_r32_cr | Mov_r64_cr
            | Mov_r32_dr | Mov_r64_dr | Mov_cr_r32 | Mov_cr_r64 | Mov_dr_r32 | Mov_dr_r64 => {
                "SYSTEM_MOVE as u16".into()
            }
            // These string instructions share their mnemonics with SSE instructions.
            Movsd_m32_m32 => "Mnemonic::Movsq as u16".into(),
            Cmpsd_m32_m32 => "Mnemonic::Cmpsq as u16".into(),
            // An operand in an mm register: iced-x86 names forms after their operands.
            _ if format!("{code:?}").contains("_mm") => "MMX as u16".into(),
            _ => (code.mnemonic() as u16).to_string(),
        };
        write!(text, "{entry},").expect("a string");
    }
    text + "];\n"
}

/// The tables as Rust source.
fn source(nodes: &[Node], forms: &[Form]) -> String {
    let mut text = format!("pub static NODES: [Node; {NODES}] = [");
    assert!(nodes.len() <= NODES);
    for index in 0..NODES {
        let node = nodes.get(index).map_or(Node::escape(Escape::Unknown), |node| *node);
        write!(text, "Node({}),", node.0).expect("a string");
    }
    write!(text, "];\npub static FORMS: [Form; {FORMS}] = [").expect("a string");
    let nothing = Forms::nothing();
    for index in 0..FORMS {
        let f = forms.get(index).unwrap_or(&nothing);
        let kinds = f.kinds.map(|kind| format!("OpKind::{kind:?}")).join(",");
        writeln!(
            text,
            "Form {{ registers: {}, kinds: [{kinds}], reg: {}, rm: {}, vvvv: {}, extends: {}, \
             immediate: {}, special: Special::{:?}, flags: {} }},",
            f.registers, f.reg, f.rm, f.vvvv, f.extends, f.immediate, f.special, f.flags
        )
        .expect("a string");
    }
    text + "];\n"
}
