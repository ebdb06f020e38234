//! An assembler for BPF: instructions as the kernel takes them, with labels for where they jump to.
//!
//! It knows what the programs beside it need and no more. Encodings are those of RFC 9669, constants bear its names.

use core::fmt;

/// An instruction as the kernel takes it (`struct bpf_insn`, `linux/bpf.h`).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// The operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Where it jumps, counted from the next instruction; or an offset in memory.
    pub offset: i16,
    /// The constant.
    pub constant: i32,
}

impl fmt::Debug for Insn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02x} {:02x} {:04x} {:08x}", self.code, self.registers, self.offset, self.constant)
    }
}

/// A register. `R0` is what calls return, `R1` to `R5` are their arguments and lost by them, the others are kept; `R10`
/// is the end of the stack, which grows downward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "registers have no names but their numbers")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How much a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the bits are in the names")]
pub enum Width {
    U8 = 0x10,
    U16 = 0x08,
    U32 = 0x00,
    U64 = 0x18,
}

/// What is done to a register, of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9669 4.1 has their meaning")]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Mov = 0xb0,
}

/// When to jump, comparing as unsigned numbers of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9669 4.3 has their meaning")]
pub enum When {
    Equal = 0x10,
    Greater = 0x20,
    AnyBit = 0x40,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// Instruction classes and modifiers (RFC 9669 3 to 5).
mod class {
    pub(super) const LDX_MEM: u8 = 0x61;
    pub(super) const ST_MEM: u8 = 0x62;
    pub(super) const STX_MEM: u8 = 0x63;
    pub(super) const STX_ATOMIC: u8 = 0xc3;
    pub(super) const ALU64: u8 = 0x07;
    pub(super) const ALU: u8 = 0x04;
    pub(super) const JMP: u8 = 0x05;
    pub(super) const FROM_REGISTER: u8 = 0x08;
    pub(super) const TO_BE: u8 = 0xd0 | FROM_REGISTER;
    pub(super) const CALL: u8 = 0x80;
    pub(super) const EXIT: u8 = 0x90;
    pub(super) const LOAD_64: u8 = 0x18;
    /// The constant is a map's descriptor (`BPF_PSEUDO_MAP_FD`).
    pub(super) const MAP_DESCRIPTOR: u8 = 1 << 4;
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program that does not hold together: a mistake of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsmError {
    /// A jump to nowhere.
    #[error("instruction {at} jumps to a label that is nowhere")]
    Unplaced {
        /// The instruction.
        at: usize,
    },
    /// A jump too far.
    #[error("instruction {at} jumps farther than 16 bits reach")]
    TooFar {
        /// The instruction.
        at: usize,
    },
}

/// A program whose maps are named by `M`, not yet by descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program<M> {
    insns: Vec<Insn>,
    maps: Vec<(usize, M)>,
}

impl<M> Program<M> {
    /// The instructions, with each map's descriptor where the map is named.
    #[must_use]
    pub fn link(&self, descriptor: impl Fn(&M) -> i32) -> Vec<Insn> {
        let mut insns = self.insns.clone();
        for (at, map) in &self.maps {
            insns[*at].constant = descriptor(map);
        }
        insns
    }
}

/// A program being written, whose maps are named by `M`.
#[derive(Debug)]
pub struct Asm<M> {
    insns: Vec<Insn>,
    maps: Vec<(usize, M)>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// Which instructions jump to which label.
    jumps: Vec<(usize, Label)>,
}

impl<M> Default for Asm<M> {
    fn default() -> Self {
        Self { insns: Vec::new(), maps: Vec::new(), labels: Vec::new(), jumps: Vec::new() }
    }
}

impl<M> Asm<M> {
    fn emit(&mut self, code: u8, (to, from): (Reg, Reg), offset: i16, constant: i32) {
        self.insns.push(Insn { code, registers: to as u8 | (from as u8) << 4, offset, constant });
    }

    /// A label that is yet to be placed.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.insns.len());
    }

    /// `to op= constant`.
    pub fn alu(&mut self, op: Alu, to: Reg, constant: i32) {
        self.emit(class::ALU64 | op as u8, (to, Reg::R0), 0, constant);
    }

    /// `to op= from`.
    pub fn alu_reg(&mut self, op: Alu, to: Reg, from: Reg) {
        self.emit(class::ALU64 | class::FROM_REGISTER | op as u8, (to, from), 0, 0);
    }

    /// `to = from`.
    pub fn copy(&mut self, to: Reg, from: Reg) {
        self.alu_reg(Alu::Mov, to, from);
    }

    /// `to = constant`.
    pub fn set(&mut self, to: Reg, constant: i32) {
        self.alu(Alu::Mov, to, constant);
    }

    /// Keeps the low 32 bits of a register.
    pub fn low_half(&mut self, reg: Reg) {
        self.emit(class::ALU | class::FROM_REGISTER | Alu::Mov as u8, (reg, reg), 0, 0);
    }

    /// Makes 16 bits in network order a number, and the other way round.
    pub fn swap16(&mut self, reg: Reg) {
        self.emit(class::ALU | class::TO_BE, (reg, Reg::R0), 0, 16);
    }

    /// `to = *(from + offset)`.
    pub fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) {
        self.emit(class::LDX_MEM | width as u8, (to, from), offset, 0);
    }

    /// `*(to + offset) = from`.
    pub fn store(&mut self, width: Width, to: Reg, offset: i16, from: Reg) {
        self.emit(class::STX_MEM | width as u8, (to, from), offset, 0);
    }

    /// `*(to + offset) = constant`.
    pub fn store_constant(&mut self, width: Width, to: Reg, offset: i16, constant: i32) {
        self.emit(class::ST_MEM | width as u8, (to, Reg::R0), offset, constant);
    }

    /// `*(to + offset) += from`, 64 bits at once for all processors.
    pub fn add_atomic(&mut self, to: Reg, offset: i16, from: Reg) {
        self.emit(class::STX_ATOMIC | Width::U64 as u8, (to, from), offset, Alu::Add as i32);
    }

    /// `to = map`.
    pub fn load_map(&mut self, to: Reg, map: M) {
        self.maps.push((self.insns.len(), map));
        self.insns.push(Insn {
            code: class::LOAD_64,
            registers: to as u8 | class::MAP_DESCRIPTOR,
            offset: 0,
            constant: 0,
        });
        self.insns.push(Insn { code: 0, registers: 0, offset: 0, constant: 0 });
    }

    /// Jumps.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.emit(class::JMP, (Reg::R0, Reg::R0), 0, 0);
    }

    /// Jumps if `left` compares so to a constant.
    pub fn jump_if(&mut self, left: Reg, when: When, constant: i32, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.emit(class::JMP | when as u8, (left, Reg::R0), 0, constant);
    }

    /// Jumps if `left` compares so to `right`.
    pub fn jump_if_reg(&mut self, left: Reg, when: When, right: Reg, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.emit(class::JMP | class::FROM_REGISTER | when as u8, (left, right), 0, 0);
    }

    /// Calls one of the kernel's functions by its number (`__BPF_FUNC_MAPPER`, `linux/bpf.h`).
    pub fn call(&mut self, function: i32) {
        self.emit(class::JMP | class::CALL, (Reg::R0, Reg::R0), 0, function);
    }

    /// Ends the program with what is in `R0`.
    pub fn exit(&mut self) {
        self.emit(class::JMP | class::EXIT, (Reg::R0, Reg::R0), 0, 0);
    }

    /// The program, jumps resolved.
    ///
    /// # Errors
    /// [`AsmError`] names the instruction that cannot be encoded.
    pub fn finish(mut self) -> Result<Program<M>, AsmError> {
        for (at, label) in self.jumps {
            let to = self.labels.get(label.0).copied().flatten().ok_or(AsmError::Unplaced { at })?;
            let distance = i64::try_from(to).ok().zip(i64::try_from(at + 1).ok()).map(|(to, from)| to - from);
            let offset = distance.and_then(|distance| i16::try_from(distance).ok());
            self.insns[at].offset = offset.ok_or(AsmError::TooFar { at })?;
        }
        Ok(Program { insns: self.insns, maps: self.maps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: one instruction of each kind. Output: what `llvm-objdump` shows for the same text, as eight octets.
    #[test]
    fn instructions_are_encoded_as_clang_does() {
        use Reg::{R0, R1, R2, R6, R10};
        let mut asm = Asm::<u8>::default();
        asm.copy(R6, R1);
        asm.set(R0, -1);
        asm.alu(Alu::And, R0, 0xff);
        asm.alu_reg(Alu::Add, R1, R2);
        asm.alu(Alu::Lsh, R1, 8);
        asm.low_half(R1);
        asm.swap16(R2);
        asm.load(Width::U32, R0, R6, 20);
        asm.load(Width::U8, R0, R10, -64);
        asm.load(Width::U16, R0, R10, -52);
        asm.store(Width::U64, R10, -8, R1);
        asm.store_constant(Width::U64, R10, -16, 0);
        asm.add_atomic(R6, 32, R1);
        asm.call(26);
        asm.exit();
        let program = asm.finish().expect("no jumps");
        let octets = |insn: &Insn| {
            let [a, b] = insn.offset.to_le_bytes();
            let [c, d, e, f] = insn.constant.to_le_bytes();
            [insn.code, insn.registers, a, b, c, d, e, f]
        };
        let expected: [[u8; 8]; 15] = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x57, 0x00, 0, 0, 0xff, 0, 0, 0],
            [0x0f, 0x21, 0, 0, 0, 0, 0, 0],
            [0x67, 0x01, 0, 0, 8, 0, 0, 0],
            [0xbc, 0x11, 0, 0, 0, 0, 0, 0],
            [0xdc, 0x02, 0, 0, 16, 0, 0, 0],
            [0x61, 0x60, 20, 0, 0, 0, 0, 0],
            [0x71, 0xa0, 0xc0, 0xff, 0, 0, 0, 0],
            [0x69, 0xa0, 0xcc, 0xff, 0, 0, 0, 0],
            [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x7a, 0x0a, 0xf0, 0xff, 0, 0, 0, 0],
            [0xdb, 0x16, 32, 0, 0, 0, 0, 0],
            [0x85, 0x00, 0, 0, 26, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(program.insns.iter().map(octets).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn jumps_count_from_the_next_instruction_both_ways_and_a_map_takes_two() {
        let mut asm = Asm::default();
        let (out, back) = (asm.label(), asm.label());
        asm.place(back);
        asm.load_map(Reg::R1, 'm');
        asm.jump_if(Reg::R0, When::Equal, 0, out);
        asm.jump_if_reg(Reg::R0, When::Greater, Reg::R1, back);
        asm.place(out);
        asm.exit();
        let insns = asm.finish().expect("labels are placed").link(|map| if *map == 'm' { 7 } else { 0 });
        assert_eq!((insns[0].code, insns[0].registers, insns[0].constant), (0x18, 0x11, 7));
        assert_eq!((insns[2].code, insns[2].offset), (0x15, 1));
        assert_eq!((insns[3].code, insns[3].registers, insns[3].offset), (0x2d, 0x10, -4));
    }

    #[test]
    fn a_jump_to_nowhere_is_refused() {
        let mut asm = Asm::<u8>::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), Err(AsmError::Unplaced { at: 0 }));
    }
}
