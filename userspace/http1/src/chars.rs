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

/// `field-vchar`, SP or HTAB.
pub(crate) const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

pub(crate) const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Index of the first byte at or after `from` that is not of `class`; `bytes.len()` when there is none.
fn class_end(bytes: &[u8], from: usize, class: u8) -> usize {
    let mut rest = &bytes[from..];
    // Eight with one question, as long as all of them belong.
    let belong = |eight: &[u8; 8]| eight.iter().fold(class, |all, &byte| all & CLASSES[usize::from(byte)]) != 0;
    while let Some((eight, after)) = rest.split_first_chunk()
        && belong(eight)
    {
        rest = after;
    }
    if rest.len() < 8 && bytes[from..].last_chunk().is_some_and(belong) {
        return bytes.len();
    }
    let end = rest.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0);
    bytes.len() - rest.len() + end.unwrap_or(rest.len())
}

/// Index of the first byte at or after `from` that may not stand in a token; `bytes.len()` when there is none.
pub(crate) fn token_end(bytes: &[u8], from: usize) -> usize {
    class_end(bytes, from, TOKEN)
}

/// Index of the first byte at or after `from` that may not stand in a request target.
pub(crate) fn target_end(bytes: &[u8], from: usize) -> usize {
    class_end(bytes, from, TARGET)
}

/// Index of the first byte that may not stand in a host name.
pub(crate) fn host_end(bytes: &[u8]) -> usize {
    class_end(bytes, 0, HOST)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Index of the first byte at or after `from` that may not stand in a field value.
#[inline]
pub(crate) fn value_end(bytes: &[u8], from: usize) -> usize {
    let mut rest = &bytes[from..];
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        // Eight bytes at once: below 0x20, or 0x7f. Borrows spoil only lanes above the first hit.
        let low = word.wrapping_sub(ONES * 0x20);
        let del = (word & !HIGH) + ONES;
        let hits = (low | del) & !word & HIGH;
        rest = after;
        if hits != 0 {
            let at = bytes.len() - after.len() - 8 + hits.trailing_zeros() as usize / 8;
            if bytes[at] != b'\t' {
                return at;
            }
            rest = &bytes[at + 1..];
        }
    }
    let end = rest.iter().position(|&byte| !is_value(byte)).unwrap_or(rest.len());
    bytes.len() - rest.len() + end
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
    fn class_end_agrees_with_the_bytewise_definition() {
        for byte in 0..=255u8 {
            for len in 0..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    for from in 0..=len {
                        let expected = (from..len).find(|&i| !is_token(bytes[i])).unwrap_or(len);
                        assert_eq!(
                            token_end(&bytes, from),
                            expected,
                            "byte {byte:#x} at {at} of {len} from {from}"
                        );
                    }
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
