//! Which decoders have anything to look for in a block: told from its masks, for many blocks at once.
//!
//! There is no branch in here, so that a compiler makes vector instructions of it; what the formulas stand for is said in
//! [`view::regions`](crate::view), which asks for them.

use super::columns::Columns;
use super::lanes::{LANES, Lanes};

/// Bits of a gate.
pub(crate) mod gate {
    /// 16 base64 characters in a row begin.
    pub(crate) const ROWS: u64 = 1;
    /// 20 do.
    pub(crate) const BLOBS: u64 = 1 << 1;
    /// 32 hexadecimal digits in a row begin, which none stands before.
    pub(crate) const HEX: u64 = 1 << 2;
    /// 26 capitals and digits in a row begin, or small letters and digits, which none stands before.
    pub(crate) const CAPITALS: u64 = 1 << 3;
    pub(crate) const SMALL: u64 = 1 << 4;
    pub(crate) const ESCAPES: u64 = 1 << 5;
    /// A character of several bytes begins.
    pub(crate) const FOLDS: u64 = 1 << 6;
    pub(crate) const NARROW: u64 = 1 << 7;
    pub(crate) const SPELLED: u64 = 1 << 8;
    pub(crate) const NUMBERS: u64 = 1 << 9;
    pub(crate) const BASE85: u64 = 1 << 10;
    /// Compressed data may begin.
    pub(crate) const MAGIC: u64 = 1 << 11;
    /// Base64 of text may begin.
    pub(crate) const TEXT: u64 = 1 << 12;
    /// Hardly a small letter: a line of uuencoded data may be here.
    pub(crate) const UUENCODED: u64 = 1 << 13;
}

/// Of each block which decoders have anything to do.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// Where 16 base64 characters in a row begin, and where 20 do.
    pub(crate) rows: Vec<u64>,
    pub(crate) blobs: Vec<u64>,
    /// Which place is the third before one in such a row: where the last of four symbols in it may be looked for. And the same
    /// of those that are not far from the row's beginning or end.
    pub(super) covers: Vec<u64>,
    pub(super) edges: Vec<u64>,
    /// Where four groups of base64 digits begin, in a run that is long enough, that may stand for ASCII.
    pub(crate) texts: Vec<u64>,
    /// Where 8 letters and digits in a row begin, which none stands before.
    pub(crate) words: Vec<u64>,
    /// Before which places no letter, digit or `_` stands.
    pub(super) begins: Vec<u64>,
    /// Where an escape may begin.
    pub(crate) escapes: Vec<u64>,
    /// Bits of [`gate`].
    pub(crate) open: Vec<u64>,
}

impl Gates {
    pub(super) fn reserve(&mut self, blocks: usize) {
        for column in [
            &mut self.rows,
            &mut self.blobs,
            &mut self.covers,
            &mut self.edges,
            &mut self.words,
            &mut self.texts,
            &mut self.begins,
            &mut self.escapes,
            &mut self.open,
        ] {
            // What lies behind the last block is written too, and read by nobody.
            let padded = blocks.next_multiple_of(LANES) + 1;
            if column.len() < padded {
                column.resize(padded, 0);
            }
        }
    }
}

/// Bits of eight blocks, with those of the blocks before and after each.
#[derive(Clone, Copy)]
struct Three {
    before: Lanes,
    here: Lanes,
    next: Lanes,
}

impl Three {
    /// Of the blocks from number `at` on; `column` has a word before the first.
    #[inline(always)]
    fn load(column: &[u64], at: usize) -> Self {
        Self {
            before: Lanes::load(column, at),
            here: Lanes::load(column, at + 1),
            next: Lanes::load(column, at + 2),
        }
    }

    #[inline(always)]
    fn map(self, other: Self, join: impl Fn(Lanes, Lanes) -> Lanes) -> Self {
        Self {
            before: join(self.before, other.before),
            here: join(self.here, other.here),
            next: join(self.next, other.next),
        }
    }

    /// Bit `i` is bit `i + by`.
    #[inline(always)]
    fn ahead(self, by: u32) -> Lanes {
        self.here >> by | self.next << (64 - by)
    }

    /// Bit `i` is bit `i - 1`.
    #[inline(always)]
    fn behind(self) -> Lanes {
        self.here << 1 | self.before >> 63
    }

    /// Where a row of set bits begins.
    #[inline(always)]
    fn begins(self) -> Lanes {
        self.here & !self.behind()
    }

    #[inline(always)]
    fn row(self) -> Row {
        Row(self.here, self.next)
    }
}

/// Rows of bits, as far as they are made of the same number of bits: of some blocks and of the next ones.
#[derive(Clone, Copy)]
struct Row(Lanes, Lanes);

impl Row {
    /// Where this row is followed, `by` bits on, by one of `other`.
    #[inline(always)]
    fn then(self, by: u32, other: Self) -> Self {
        Self(
            self.0 & (other.0 >> by | other.1 << (64 - by)),
            self.1 & other.1 >> by,
        )
    }

    /// Where 8 set bits in a row begin.
    #[inline(always)]
    fn eight(self) -> Self {
        let two = self.then(1, self);
        let four = two.then(2, two);
        four.then(4, four)
    }

    /// Where 16 do.
    #[inline(always)]
    fn sixteen(self) -> Self {
        let eight = self.eight();
        eight.then(8, eight)
    }
}

/// Fills `gates` for the first `blocks` of `columns`.
#[inline(always)]
pub(super) fn fill(columns: &Columns, blocks: usize, gates: &mut Gates) {
    gates.reserve(blocks);
    for at in (0..blocks).step_by(LANES) {
        eight_blocks(columns, at, gates);
    }
    // Nothing is known of what follows.
    if let Some(after) = gates.rows.get_mut(blocks) {
        *after = 0;
    }
    for at in (0..blocks).step_by(LANES) {
        fill_covers(columns, at, gates);
    }
}

#[inline(always)]
fn eight_blocks(columns: &Columns, at: usize, gates: &mut Gates) {
    let alnum = Three::load(&columns.alnum, at);
    let upper = Three::load(&columns.upper, at);
    let digit = Three::load(&columns.digit, at);
    let wide = Three::load(&columns.wide, at);
    let hex = Three::load(&columns.hex, at);

    let row = wide.row().sixteen();
    let blob = row.then(4, row).0;
    row.0.store(&mut gates.rows, at);
    blob.store(&mut gates.blobs, at);
    let mut open = row.0.gate(gate::ROWS) | blob.gate(gate::BLOBS);

    // Of a group of four digits three have a high bit of a byte, and four groups are in any fourteen bytes in a row.
    let group = Three::load(&columns.base64_first, at)
        .row()
        .then(1, Three::load(&columns.base64_second, at).row())
        .then(2, Three::load(&columns.base64_third, at).row());
    let two = group.then(4, group);
    let texts = two.then(8, two).0 & blob;
    texts.store(&mut gates.texts, at);
    open = open | texts.gate(gate::TEXT);

    let row = alnum.row().eight();
    (row.0 & !alnum.behind()).store(&mut gates.words, at);
    let word = alnum.map(Three::load(&columns.underscore, at), |a, b| a | b);
    (!word.behind()).store(&mut gates.begins, at);

    let row = hex.row().sixteen();
    open = open | (row.then(16, row).0 & hex.begins()).gate(gate::HEX);
    let capitals = upper.map(digit, |a, b| a | b);
    let row = capitals.row().sixteen();
    open = open | (row.then(10, row).0 & capitals.begins()).gate(gate::CAPITALS);
    let small = alnum.map(upper, |a, b| a & !b);
    let row = small.row().sixteen();
    open = open | (row.then(10, row).0 & small.begins()).gate(gate::SMALL);

    let gap = Three::load(&columns.gap, at);
    let lead = Lanes::load(&columns.lead, at + 1);
    let pair = hex.ahead(1) & hex.ahead(2);
    let escape = Three::load(&columns.escaped, at).ahead(1);
    let gap_next = gap.ahead(1);
    let soft = lead & escape & gap_next & (wide.behind() | first_bit(at) | gap.here << 1);
    let escapes = Lanes::load(&columns.backslash, at + 1) & escape
        | lead & (pair | escape & !gap_next)
        | soft
        | Lanes::load(&columns.ampersand, at + 1) & !gap_next;
    escapes.store(&mut gates.escapes, at);
    open = open | escapes.gate(gate::ESCAPES);

    let high = Three::load(&columns.high, at);
    let continued = Three::load(&columns.continued, at);
    let several = high.here & !continued.here & continued.ahead(1);
    open = open | several.gate(gate::FOLDS);

    let zero = Three::load(&columns.zero, at);
    let narrow = (alnum.here & zero.ahead(1)).count_ones().at_least(10);
    open = open | narrow.gate(gate::NARROW);

    open = open | is_spelled(alnum, high.here).gate(gate::SPELLED);
    open = open | numbers(alnum.here, hex.here).gate(gate::NUMBERS);

    // Base 85: few gaps, and of 85 characters about 26 capitals, 36 small letters and digits, and 23 signs. What stands in two
    // halves of blocks of prose is missed: all of such blocks would have to be looked at.
    let capitals = upper.here.count_ones();
    let others = alnum.here.count_ones().minus(capitals);
    let gaps = gap.here.count_ones();
    let text = (high.here | zero.here).is_zero();
    let base85 = text
        & (!(alnum.here | gap.here)).count_ones().at_least(5)
        & capitals.at_least(6)
        & capitals.at_most(40)
        & others.at_least(6)
        & others.at_most(44)
        & gaps.at_most(16);
    open = open | base85.gate(gate::BASE85);

    // A line of 61 characters and its end: no small letters, and few other blocks have none.
    let uuencoded = text
        & (small.here & !digit.here).count_ones().at_most(1)
        & capitals.at_least(8)
        & gaps.at_most(20);
    open = open | uuencoded.gate(gate::UUENCODED);

    // gzip: 1F 8B 08. zip: two control characters after two capitals. zstd: 28 B5 2F FD.
    let control = Three::load(&columns.control, at);
    let gzip = control.here & high.ahead(1) & control.ahead(2);
    let zip = control.ahead(2) & control.ahead(3) & upper.here & upper.ahead(1);
    let zstd = !high.here & high.ahead(1) & !high.ahead(2) & high.ahead(3);
    open = open | (gzip | zip | zstd).gate(gate::MAGIC);
    open.store(&mut gates.open, at);
}

/// The first bit of the first block.
#[inline(always)]
fn first_bit(at: usize) -> Lanes {
    const FIRST: [u64; LANES] = [1, 0, 0, 0, 0, 0, 0, 0];
    if at == 0 {
        Lanes::load(&FIRST, 0)
    } else {
        Lanes::ZERO
    }
}

/// Whether nearly all letters and digits of a block, or of half of it, stand alone. Random bytes have nine such in a block, and
/// half of those bytes are high.
#[inline(always)]
fn is_spelled(alnum: Three, high: Lanes) -> Lanes {
    let alone = alnum.begins() & !alnum.ahead(1);
    let count = alone.count_ones();
    let all = is_most(count, alnum.here.count_ones());
    let halves = is_half_spelled(alone.low(), alnum.here.low())
        | is_half_spelled(alone >> 32, alnum.here >> 32);
    let text = high.is_zero();
    text & (count.at_least(10) & all | halves) | !text & count.at_least(14) & all
}

#[inline(always)]
fn is_half_spelled(alone: Lanes, alnum: Lanes) -> Lanes {
    let count = alone.count_ones();
    count.at_least(8) & is_most(count, alnum.count_ones())
}

/// Whether `part` is three fourths of `whole` at least.
#[inline(always)]
fn is_most(part: Lanes, whole: Lanes) -> Lanes {
    (part << 2).not_below((whole << 2).minus(whole))
}

/// Whether a block, or half of it, holds hardly more than numbers and what stands between them.
#[inline(always)]
fn numbers(alnum: Lanes, hex: Lanes) -> Lanes {
    let begin = alnum & !(alnum << 1);
    // A number a line, indented, is spread over all of a block.
    part_numbers(alnum, hex, begin, 4, 2)
        | part_numbers(alnum.low(), hex.low(), begin.low(), 5, 3)
        | part_numbers(alnum >> 32, hex >> 32, begin >> 32, 5, 3)
}

/// Of a part in which so many numbers begin, or of long ones so many.
#[inline(always)]
fn part_numbers(alnum: Lanes, hex: Lanes, begin: Lanes, few: u64, long: u64) -> Lanes {
    let (letters, numbers) = ((alnum & !hex).count_ones(), begin.count_ones());
    let hex = hex.count_ones();
    // Most are four digits long at most.
    hex.at_least(10)
        & hex.not_below(letters << 1)
        & (numbers.at_least(few) | numbers.at_least(long) & hex.at_least(26))
}

/// The same of one block.
pub(crate) fn is_numbers(alnum: u64, hex: u64) -> bool {
    let one = |word: u64| Lanes::load(&[word; LANES], 0);
    let mut answer = [0; LANES];
    numbers(one(alnum), one(hex)).store(&mut answer, 0);
    answer[0] != 0
}

/// Marks all of each row, and of each place the third before it.
#[inline(always)]
fn fill_covers(columns: &Columns, at: usize, gates: &mut Gates) {
    const BEFORE: u32 = super::POSITIONS as u32 - 1;
    let rows = &gates.rows;
    let here = Lanes::load(rows, at);
    let next = Lanes::load_some(rows, at + 1);
    let before = match at.checked_sub(1) {
        Some(before) => Lanes::load(rows, before),
        None => here.after_zero(),
    };
    // What is set goes on for 15 places more, also from the block before.
    let mut before_set = before >> BEFORE | here << (64 - BEFORE);
    let mut set = here >> BEFORE | next << (64 - BEFORE);
    for by in [1, 2, 4, 8] {
        set = set | set << by | before_set >> (64 - by);
        before_set = before_set | before_set << by;
    }
    set.store(&mut gates.covers, at);
    (set & near(Three::load(&columns.wide, at))).store(&mut gates.edges, at);
}

/// The places within 32 bytes of one whose bit is not set, before or after.
#[inline(always)]
fn near(mask: Three) -> Lanes {
    let (mut up, mut carry) = (!mask.here, !mask.before);
    let (mut down, mut next) = (!mask.here, !mask.next);
    for by in [1, 2, 4, 8, 16] {
        up = up | up << by | carry >> (64 - by);
        carry = carry | carry << by;
        down = down | down >> by | next << (64 - by);
        next = next | next >> by;
    }
    up | down
}
