//! Character classes of RFC 9110 §5.6.2 and RFC 3986, and the scans over them.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // Wider than RFC 3986: clients in the field send `"[\]^{|}` raw, and none of them can move a boundary.
        // A fragment is never sent (RFC 9112 §3.2), bytes above ASCII never unescaped.
        if b > b' ' && b < 0x7f && !matches!(b, b'#' | b'<' | b'>' | b'`') {
            class |= TARGET;
        }
        // reg-name of RFC 3986 §3.2.2: unreserved, pct-encoded, sub-delims.
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
        {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

static CLASSES: [u8; 256] = classes();

pub(crate) const fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

pub(crate) const fn is_target(byte: u8) -> bool {
    CLASSES[byte as usize] & TARGET != 0
}

pub(crate) const fn is_host(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// `field-vchar`, SP or HTAB.
pub(crate) const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

pub(crate) const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Index of the first byte at or after `from` that may not stand in a token; `bytes.len()` when there is none.
pub(crate) fn token_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|&b| !is_token(b))
        .map_or(bytes.len(), |at| from + at)
}

/// Index of the first byte at or after `from` that may not stand in a request target.
pub(crate) fn target_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|&b| !is_target(b))
        .map_or(bytes.len(), |at| from + at)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Index of the first byte at or after `from` that may not stand in a field value.
pub(crate) fn value_end(bytes: &[u8], mut from: usize) -> usize {
    while let Some(word) = bytes.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let del = word ^ (ONES * 0x7f);
        // Eight bytes at once: below 0x20, or 0x7f. Borrows spoil only lanes above the first hit.
        let hits = ((word.wrapping_sub(ONES * 0x20) & !word) | (del.wrapping_sub(ONES) & !del)) & HIGH;
        if hits == 0 {
            from += 8;
            continue;
        }
        from += hits.trailing_zeros() as usize / 8;
        if bytes[from] != b'\t' {
            return from;
        }
        from += 1;
    }
    bytes[from..]
        .iter()
        .position(|&b| !is_value(b))
        .map_or(bytes.len(), |at| from + at)
}

/// Index of the first colon among the first 40 bytes, as far as they come in whole words: a quick look for what is
/// nearly always there.
pub(crate) fn near_colon(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().take(5).enumerate().find_map(|(at, word)| {
        let differ = u64::from_le_bytes(*word) ^ (ONES * b':' as u64);
        let hits = differ.wrapping_sub(ONES) & !differ & HIGH;
        (hits != 0).then(|| at * 8 + hits.trailing_zeros() as usize / 8)
    })
}

/// `bytes` without leading and trailing SP and HTAB.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Appends `number` in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Parses one or more ASCII digits; `None` on anything else or overflow.
pub(crate) fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_end_agrees_with_the_bytewise_definition() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut bytes = [b'a'; 24];
                bytes[at] = byte;
                bytes[22] = 0;
                for from in 0..=at {
                    let expected = (from..24).find(|&i| !is_value(bytes[i])).unwrap_or(24);
                    assert_eq!(value_end(&bytes, from), expected, "byte {byte:#x} at {at} from {from}");
                }
            }
        }
    }

    #[test]
    fn decimals_stop_at_the_edge_of_64_bits() {
        assert_eq!(parse_decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_decimal(b"18446744073709551616"), None);
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1_0", b"1.0"] {
            assert_eq!(parse_decimal(bad), None);
        }
        let mut out = Vec::new();
        push_decimal(&mut out, u64::MAX);
        push_decimal(&mut out, 0);
        assert_eq!(out, b"184467440737095516150");
    }
}
