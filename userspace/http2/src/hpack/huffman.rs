//! The Huffman code of HPACK (RFC 7541 §5.2, Appendix B).
//!
//! It is canonical: codes of one length are consecutive and in the order of their symbols, and those of the next length follow.
//! So the lengths say everything, and the tables are made from them when this is compiled.

/// Bits of the code of each byte, and of the end of a string (Appendix B).
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const LONGEST: usize = 30;
const END: u16 = 256;

/// Bits that the first look takes. Nearly everything in fields has a code of at most ten.
const LOOK: usize = 10;

struct Tables {
    /// Code of each symbol.
    codes: [u32; 257],
    /// By the next [`LOOK`] bits: symbol and length, `length << 8 | symbol`; zero where the code is longer.
    short: [u16; 1 << LOOK],
    /// Symbols in the order of their codes.
    sorted: [u16; 257],
    /// By length: its first code, where that is in `sorted`, and how many there are.
    first: [u32; LONGEST + 1],
    at: [u16; LONGEST + 1],
    count: [u16; LONGEST + 1],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables {
        codes: [0; 257],
        short: [0; 1 << LOOK],
        sorted: [0; 257],
        first: [0; LONGEST + 1],
        at: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
    };
    let (mut code, mut place, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        code <<= 1;
        tables.first[length] = code;
        tables.at[length] = place as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                tables.codes[symbol] = code;
                tables.sorted[place] = symbol as u16;
                if length <= LOOK {
                    let mut at = (code as usize) << (LOOK - length);
                    let end = (code as usize + 1) << (LOOK - length);
                    while at < end {
                        tables.short[at] = (length as u16) << 8 | symbol as u16;
                        at += 1;
                    }
                }
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        tables.count[length] = place as u16 - tables.at[length];
        length += 1;
    }
    tables
}

/// The string holds the end symbol, or its padding is longer than seven bits or not of ones (RFC 7541 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends what `input` says.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // No code has fewer than five bits.
    out.reserve(input.len() * 8 / 5);
    let (mut bits, mut held) = (0u64, 0usize);
    let mut rest = input;
    loop {
        if held <= 32 {
            if let Some((word, after)) = rest.split_first_chunk::<4>() {
                bits = bits << 32 | u64::from(u32::from_be_bytes(*word));
                held += 32;
                rest = after;
            } else {
                for byte in rest {
                    bits = bits << 8 | u64::from(*byte);
                    held += 8;
                }
                rest = &[];
            }
        }
        while held >= LOOK {
            let entry = TABLES.short[(bits >> (held - LOOK)) as usize & ((1 << LOOK) - 1)];
            if entry == 0 {
                break;
            }
            held -= usize::from(entry >> 8);
            out.push(entry as u8);
        }
        if held >= LONGEST {
            held -= long(bits, held, out)?;
        } else if rest.is_empty() {
            return tail(bits, held, out);
        }
    }
}

/// Takes one code of any length; how many bits that were.
fn long(bits: u64, held: usize, out: &mut Vec<u8>) -> Result<usize, Malformed> {
    for length in 5..=LONGEST.min(held) {
        let code = (bits >> (held - length)) as u32 & ((1u64 << length) - 1) as u32;
        let beyond = code.wrapping_sub(TABLES.first[length]);
        if code >= TABLES.first[length] && beyond < u32::from(TABLES.count[length]) {
            let symbol = TABLES.sorted[usize::from(TABLES.at[length]) + beyond as usize];
            if symbol == END {
                return Err(Malformed);
            }
            out.push(symbol as u8);
            return Ok(length);
        }
    }
    Err(Malformed)
}

/// The last few codes, and the padding.
fn tail(bits: u64, mut held: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    loop {
        let left = bits & ((1u64 << held) - 1);
        let padding = held < 8 && left == (1u64 << held) - 1;
        if padding {
            return Ok(());
        }
        held -= long(bits, held, out)?;
    }
}

/// Bytes that [`encode`] writes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u64, 0u32);
    for byte in text {
        let length = u32::from(LENGTHS[usize::from(*byte)]);
        bits = bits << length | u64::from(TABLES.codes[usize::from(*byte)]);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        // The beginning of the end symbol: ones.
        out.push((bits << (8 - held)) as u8 | ((1u16 << (8 - held)) - 1) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &[u8]) {
        let mut code = Vec::new();
        encode(text, &mut code);
        assert_eq!(code.len(), encoded_len(text));
        let mut back = Vec::new();
        decode(&code, &mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn the_code_is_the_one_of_the_rfc() {
        // Rows of Appendix B from all over the table.
        let rows = [
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (b' ', 0x14, 6),
            (b'0', 0x0, 5),
            (b'X', 0xfc, 8),
            (b'z', 0x7b, 7),
            (b'\\', 0x7_fff0, 19),
            (127, 0xfff_fffc, 28),
            (200, 0x3ff_ffe2, 26),
            (255, 0x3ff_ffee, 26),
        ];
        for (symbol, code, length) in rows {
            let symbol: u8 = symbol;
            assert_eq!(TABLES.codes[usize::from(symbol)], code, "{symbol}");
            assert_eq!(LENGTHS[usize::from(symbol)], length, "{symbol}");
        }
        assert_eq!(TABLES.codes[256], 0x3fff_ffff);
    }

    #[test]
    fn every_byte_and_every_pair_comes_back() {
        for one in 0..=255u8 {
            round(&[one]);
            for other in 0..=255 {
                round(&[one, other]);
            }
        }
        round(b"");
        round(&(0..=255).collect::<Vec<_>>());
        round(&[10; 100]);
        round("www.example.com, and a long one of common letters 0123456789".as_bytes());
    }

    #[test]
    fn wrong_padding_and_the_end_symbol_are_malformed() {
        let mut out = Vec::new();
        // '0' is 00000: three bits of padding that are not ones.
        assert_eq!(decode(&[0b0000_0000], &mut out), Err(Malformed));
        assert_eq!(decode(&[0b0000_0111], &mut out), Ok(()));
        // A whole byte of padding.
        assert_eq!(decode(&[0b0000_0111, 0xff], &mut out), Err(Malformed));
        assert_eq!(decode(&[0xff], &mut out), Err(Malformed));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], &mut out), Err(Malformed));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 0], &mut out), Err(Malformed));
    }
}
