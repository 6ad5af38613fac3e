//! What the blocks of a text hold, a column for each kind of byte, so that many blocks are looked at in one instruction.

use super::BLOCK;
use super::lanes::LANES;

/// Declares the columns: one word of 64 bits a block in each.
macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one 64-byte block of a text holds: bit `i` is about byte `i`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Masks {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        /// The same of many blocks. Each column has a block of zeros before the first and after the last one.
        #[derive(Debug, Default)]
        pub(crate) struct Columns {
            $(pub(super) $name: Vec<u64>,)*
        }

        /// The columns as they are filled: all of one length, so that one comparison does for all.
        pub(super) struct Rows<'a> {
            $($name: &'a mut [u64],)*
        }

        impl Rows<'_> {
            #[inline(always)]
            pub(super) fn set(&mut self, number: usize, masks: Masks) {
                $(self.$name[number] = masks.$name;)*
            }
        }

        impl Columns {
            /// Grown and never shrunk: what lies behind the lengths given is not read.
            pub(super) fn reserve(&mut self, blocks: usize) {
                let padded = blocks.next_multiple_of(LANES) + 2;
                $(if self.$name.len() < padded {
                    self.$name.resize(padded, 0);
                })*
            }

            /// Those of the first `blocks` blocks.
            pub(super) fn rows(&mut self, blocks: usize) -> Rows<'_> {
                Rows { $($name: &mut self.$name[1..=blocks],)* }
            }

            #[cfg(test)]
            fn at(&self, number: usize) -> Masks {
                Masks { $($name: self.$name[number + 1],)* }
            }

            /// The block of zeros after the last one.
            pub(super) fn end(&mut self, blocks: usize) {
                $(self.$name[blocks + 1] = 0;)*
            }

        }

        /// The word of one block; zero, where there is no such block.
        impl Blocks<'_> {
            $($(#[$doc])*
            #[inline]
            #[allow(dead_code, reason = "a column that only the gates read has an accessor like the others")]
            pub(crate) fn $name(self, number: usize) -> u64 {
                match self.columns.$name.get(number.wrapping_add(1)) {
                    Some(word) if number < self.length => *word,
                    _ => 0,
                }
            })*
        }
    };
}

columns! {
    /// `[A-Za-z0-9]`.
    alnum,
    /// `[A-Z]`.
    upper,
    /// `[A-Za-z0-9_+/-]`: base64 of either alphabet.
    wide,
    /// `[0-9A-Fa-f]`.
    hex,
    /// `%` and `=`.
    lead,
    backslash,
    /// What makes an escape of a backslash before it.
    escaped,
    ampersand,
    /// White space and quotes.
    gap,
    /// Bytes above 0x7F.
    high,
    /// Bytes from 0x80 to 0xBF: what continues a character in UTF-8.
    continued,
    /// `[0-9]`.
    digit,
    zero,
    underscore,
    /// Digits of base64 that may be the first, second and third of four that stand for ASCII: the bit of theirs that is the high
    /// bit of a byte is not set.
    base64_first,
    base64_second,
    base64_third,
    /// Bytes below 0x20 but white space.
    control,
}

/// The blocks of one text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    columns: &'a Columns,
    length: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(columns: &'a Columns, length: usize) -> Self {
        Self { columns, length }
    }

    pub(crate) fn len(self) -> usize {
        self.length
    }

    /// The first `length` of them.
    pub(crate) fn first(self, length: usize) -> Self {
        Self {
            length: length.min(self.length),
            ..self
        }
    }

    /// All masks of one block.
    #[cfg(test)]
    pub(super) fn at(self, number: usize) -> Masks {
        self.columns.at(number)
    }
}

/// The 64 bits of a column that begin with that of the byte at `at`.
#[inline]
pub(crate) fn row(column: impl Fn(usize) -> u64, at: usize) -> u64 {
    let (number, shift) = (at / BLOCK, (at % BLOCK) as u32);
    column(number) >> shift | column(number + 1) << 1 << (63 - shift)
}
