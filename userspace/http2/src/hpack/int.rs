//! Integers with a prefix (RFC 7541 §5.1).

/// Larger than anything HPACK may say here.
const MOST: usize = 1 << 28;

/// Reads an integer whose first byte is `first`, of which `bits` belong to it; `rest` follows. `None`: cut short or too large.
pub(super) fn read(first: u8, bits: u32, rest: &mut &[u8]) -> Option<usize> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some(value);
    }
    let mut shift = 0;
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value += usize::from(byte & 0x7f) << shift;
        if value > MOST {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
}

/// Appends an integer; `flags` are the bits of the first byte before its prefix.
pub(super) fn write(flags: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(value: usize, bits: u32, bytes: &[u8]) {
        let mut out = Vec::new();
        write(0, bits, value, &mut out);
        assert_eq!(out, bytes);
        let mut rest = &bytes[1..];
        assert_eq!(read(bytes[0], bits, &mut rest), Some(value));
        assert!(rest.is_empty());
    }

    #[test]
    fn examples_of_appendix_c_1() {
        both(10, 5, &[0b0_1010]);
        both(1337, 5, &[0b1_1111, 0b1001_1010, 0b0000_1010]);
        both(42, 8, &[42]);
        both(31, 5, &[31, 0]);
        both(127, 7, &[127, 0]);
    }

    #[test]
    fn what_is_cut_or_has_no_end_is_refused() {
        assert_eq!(read(0x1f, 5, &mut &[][..]), None);
        assert_eq!(read(0x1f, 5, &mut &[0x80][..]), None);
        assert_eq!(read(0x1f, 5, &mut &[0x80; 40][..]), None);
        assert_eq!(read(0x1f, 5, &mut &[0xff, 0xff, 0xff, 0xff, 0x7f][..]), None);
    }
}
