//! Which decoders have anything to look for in a block: told from its masks, for many blocks at once.
//!
//! There is no branch in here, so that a compiler makes vector instructions of it; what the formulas stand for is said in
//! [`view::regions`](crate::view), which asks for them.

use super::columns::Columns;

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
            &mut self.begins,
            &mut self.escapes,
            &mut self.open,
        ] {
            if column.len() < blocks {
                column.resize(blocks, 0);
            }
        }
    }
}

/// Rows of bits, as far as they are made of the same number of bits: of one block and of the next.
#[derive(Clone, Copy)]
struct Row(u64, u64);

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
    fn eight(here: u64, next: u64) -> Self {
        let one = Self(here, next);
        let two = one.then(1, one);
        let four = two.then(2, two);
        four.then(4, four)
    }

    /// Where 16 do.
    #[inline(always)]
    fn sixteen(here: u64, next: u64) -> Self {
        let eight = Self::eight(here, next);
        eight.then(8, eight)
    }
}

#[inline(always)]
fn shifted(mask: u64, next: u64, by: u32) -> u64 {
    mask >> by | next << (64 - by)
}

#[inline(always)]
fn flag(condition: bool, gate: u64) -> u64 {
    if condition { gate } else { 0 }
}

/// Fills `gates` for the first `blocks` of `columns`.
#[inline(always)]
pub(super) fn fill(columns: &Columns, blocks: usize, gates: &mut Gates) {
    gates.reserve(blocks);
    let (rows, blobs, words, word_begins, escapes, open) = (
        &mut gates.rows[..blocks],
        &mut gates.blobs[..blocks],
        &mut gates.words[..blocks],
        &mut gates.begins[..blocks],
        &mut gates.escapes[..blocks],
        &mut gates.open[..blocks],
    );
    /// The words of a column before, of, and after each block.
    macro_rules! words {
        ($name:ident) => {
            (
                &columns.$name[..blocks],
                &columns.$name[1..=blocks],
                &columns.$name[2..blocks + 2],
            )
        };
    }
    let alnum = words!(alnum);
    let upper = words!(upper);
    let underscore = words!(underscore);
    let wide = words!(wide);
    let hex = words!(hex);
    let lead = words!(lead);
    let backslash = words!(backslash);
    let escaped = words!(escaped);
    let ampersand = words!(ampersand);
    let gap = words!(gap);
    let high = words!(high);
    let continued = words!(continued);
    let digit = words!(digit);
    let zero = words!(zero);
    let control = words!(control);
    for i in 0..blocks {
        let row = Row::sixteen(wide.1[i], wide.2[i]);
        let blob = row.then(4, row).0;
        rows[i] = row.0;
        blobs[i] = blob;
        let mut open_here = flag(row.0 != 0, gate::ROWS) | flag(blob != 0, gate::BLOBS);

        let row = Row::eight(alnum.1[i], alnum.2[i]);
        words[i] = row.0 & !(alnum.1[i] << 1 | alnum.0[i] >> 63);
        word_begins[i] =
            !((alnum.1[i] | underscore.1[i]) << 1 | (alnum.0[i] | underscore.0[i]) >> 63);
        let begins = |before: u64, here: u64| !(here << 1 | before >> 63);
        let row = Row::sixteen(hex.1[i], hex.2[i]);
        let long = row.then(16, row).0 & begins(hex.0[i], hex.1[i]);
        open_here |= flag(long != 0, gate::HEX);
        let capitals = [
            upper.0[i] | digit.0[i],
            upper.1[i] | digit.1[i],
            upper.2[i] | digit.2[i],
        ];
        let row = Row::sixteen(capitals[1], capitals[2]);
        let long = row.then(10, row).0 & begins(capitals[0], capitals[1]);
        open_here |= flag(long != 0, gate::CAPITALS);
        let small = [
            alnum.0[i] & !upper.0[i],
            alnum.1[i] & !upper.1[i],
            alnum.2[i] & !upper.2[i],
        ];
        let row = Row::sixteen(small[1], small[2]);
        let long = row.then(10, row).0 & begins(small[0], small[1]);
        open_here |= flag(long != 0, gate::SMALL);

        let pair = shifted(hex.1[i], hex.2[i], 1) & shifted(hex.1[i], hex.2[i], 2);
        let escape = shifted(escaped.1[i], escaped.2[i], 1);
        let gap_next = shifted(gap.1[i], gap.2[i], 1);
        let first = u64::from(i == 0);
        let after_word = wide.1[i] << 1 | wide.0[i] >> 63 | first;
        let soft = lead.1[i] & escape & gap_next & (after_word | gap.1[i] << 1);
        let found = backslash.1[i] & escape
            | lead.1[i] & (pair | escape & !gap_next)
            | soft
            | ampersand.1[i] & !gap_next;
        escapes[i] = found;
        open_here |= flag(found != 0, gate::ESCAPES);

        let several = high.1[i] & !continued.1[i] & shifted(continued.1[i], continued.2[i], 1);
        open_here |= flag(several != 0, gate::FOLDS);

        let narrow = alnum.1[i] & shifted(zero.1[i], zero.2[i], 1);
        open_here |= flag(narrow.count_ones() >= 10, gate::NARROW);

        // Whether nearly all letters and digits of a block, or of half of it, stand alone. Random bytes have nine such in a block,
        // and half of those bytes are high.
        let alone = alnum.1[i]
            & !(alnum.1[i] << 1 | alnum.0[i] >> 63)
            & !shifted(alnum.1[i], alnum.2[i], 1);
        let count = |mask: u64| mask.count_ones();
        let half = |mask: u64, upper: bool| {
            count(if upper {
                mask >> 32
            } else {
                mask & 0xFFFF_FFFF
            })
        };
        let most = |alone: u32, alnum: u32| 4 * alone >= 3 * alnum;
        let all = most(count(alone), count(alnum.1[i]));
        let halves =
            |at: bool| (half(alone, at) >= 8) & most(half(alone, at), half(alnum.1[i], at));
        let text = (count(alone) >= 10) & all | halves(false) | halves(true);
        let spelled = if high.1[i] != 0 {
            (count(alone) >= 14) & all
        } else {
            text
        };
        open_here |= flag(spelled, gate::SPELLED);
        open_here |= flag(is_numbers(alnum.1[i], hex.1[i]), gate::NUMBERS);

        // Base 85: hardly a gap, and of 85 characters about 26 capitals, 36 small letters and digits, and 23 signs.
        let capitals = count(upper.1[i]);
        let others = count(alnum.1[i]) - capitals;
        let signs = count(!(alnum.1[i] | gap.1[i]));
        let base85 = (high.1[i] | zero.1[i] == 0)
            & (signs >= 5)
            & (digit.1[i] != 0)
            & (capitals >= 8)
            & (capitals <= 40)
            & (others >= 8)
            & (others <= 44)
            & (count(gap.1[i]) <= 6);
        open_here |= flag(base85, gate::BASE85);

        // gzip: 1F 8B 08. zip: two control characters after two capitals. zstd: 28 B5 2F FD.
        let high_next = shifted(high.1[i], high.2[i], 1);
        let gzip = control.1[i] & high_next & shifted(control.1[i], control.2[i], 2);
        let zip = shifted(control.1[i], control.2[i], 2)
            & shifted(control.1[i], control.2[i], 3)
            & upper.1[i]
            & shifted(upper.1[i], upper.2[i], 1);
        let zstd = !high.1[i]
            & high_next
            & !shifted(high.1[i], high.2[i], 2)
            & shifted(high.1[i], high.2[i], 3);
        open_here |= flag(gzip | zip | zstd != 0, gate::MAGIC);
        open[i] = open_here;
    }
    fill_covers(&gates.rows[..blocks], &mut gates.covers[..blocks]);
    let covers = &gates.covers[..blocks];
    let edges = &mut gates.edges[..blocks];
    for i in 0..blocks {
        edges[i] = covers[i] & near(wide.0[i], wide.1[i], wide.2[i]);
    }
}

/// The places within 32 bytes of one that is not in `here`, before or after.
#[inline(always)]
fn near(before: u64, here: u64, after: u64) -> u64 {
    let (before, here, after) = (!before, !here, !after);
    let (mut up, mut carry) = (here, before);
    let (mut down, mut next) = (here, after);
    for by in [1, 2, 4, 8, 16] {
        up |= up << by | carry >> (64 - by);
        carry |= carry << by;
        down |= down >> by | next << (64 - by);
        next |= next >> by;
    }
    up | down
}

/// Marks all of each row, and of each place the third before it.
#[inline(always)]
fn fill_covers(rows: &[u64], covers: &mut [u64]) {
    const BEFORE: u32 = super::POSITIONS as u32 - 1;
    let cover = |before: u64, here: u64, next: u64| {
        // What is set goes on for 15 places more, also from the block before.
        let (mut before, mut here) = (
            before >> BEFORE | here << (64 - BEFORE),
            here >> BEFORE | next << (64 - BEFORE),
        );
        for by in [1, 2, 4, 8] {
            here |= here << by | before >> (64 - by);
            before |= before << by;
        }
        here
    };
    let blocks = rows.len();
    for i in 1..blocks.saturating_sub(1) {
        covers[i] = cover(rows[i - 1], rows[i], rows[i + 1]);
    }
    let at = |number: Option<usize>| {
        number
            .and_then(|number| rows.get(number))
            .map_or(0, |row| *row)
    };
    for i in [0, blocks.wrapping_sub(1)] {
        if let Some(to) = covers.get_mut(i) {
            *to = cover(at(i.checked_sub(1)), at(Some(i)), at(Some(i + 1)));
        }
    }
}

/// Whether half of a block holds hardly more than numbers and what stands between them.
#[inline(always)]
pub(crate) fn is_numbers(alnum: u64, hex: u64) -> bool {
    let begin = alnum & !(alnum << 1);
    let half = |shift: u32| {
        let part = |mask: u64| ((mask >> shift) & 0xFFFF_FFFF).count_ones();
        let (hex, letters, numbers) = (part(hex), part(alnum & !hex), part(begin));
        // Binary numbers are eight digits long, all others four at most.
        (hex >= 10) & (2 * letters <= hex) & ((numbers >= 5) | (numbers >= 3) & (hex >= 26))
    };
    half(0) | half(32)
}
