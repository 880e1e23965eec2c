//! One's-complement arithmetic on differences (RFC 1624), in the form the kernel's helpers take.
//!
//! A difference is what `bpf_csum_diff` returns: the folded sum of the complemented old words and the new words. It
//! does not depend on byte order, so words are taken as they lie in memory.

/// Adds two one's-complement sums.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    (sum as u32) + (sum >> 32) as u32
}

/// Difference of replacing one 16-byte address by another. Equal words (the mapped prefix of IPv4) add nothing.
#[inline(always)]
pub const fn diff_addr(from: &[u32; 4], to: &[u32; 4]) -> u32 {
    let mut sum = 0u64;
    sum += !from[0] as u64 + to[0] as u64;
    sum += !from[1] as u64 + to[1] as u64;
    sum += !from[2] as u64 + to[2] as u64;
    sum += !from[3] as u64 + to[3] as u64;
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

/// Difference of replacing one 16-bit word by another, both as they lie in memory.
#[inline(always)]
pub const fn diff16(from: u16, to: u16) -> u32 {
    (!from) as u32 + to as u32
}

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field after its data changed by `diff`. Both as they lie in memory.
#[inline(always)]
pub const fn apply(check: u16, diff: u32) -> u16 {
    !fold(add(!check as u32 & 0xffff, diff))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The definition (RFC 1071), as reference.
    pub(crate) fn checksum(data: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in data.chunks(2) {
            sum += u64::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// 0x0000 and 0xffff are the same number in one's complement.
    pub(crate) fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn a_changed_address_is_followed(from: [u32; 4], to: [u32; 4], rest: Vec<u8>) {
            let bytes = |a: &[u32; 4]| -> Vec<u8> {
                a.iter().flat_map(|w| w.to_ne_bytes()).chain(rest.iter().copied()).collect()
            };
            let got = apply(checksum(&bytes(&from)), diff_addr(&from, &to));
            prop_assert!(same(got, checksum(&bytes(&to))));
        }

        #[test]
        fn a_changed_port_is_followed(from: u16, to: u16, rest: Vec<u8>) {
            let bytes = |p: u16| -> Vec<u8> { p.to_ne_bytes().into_iter().chain(rest.iter().copied()).collect() };
            let got = apply(checksum(&bytes(from)), diff16(from, to));
            prop_assert!(same(got, checksum(&bytes(to))));
        }

        #[test]
        fn differences_add_up(a: [u32; 4], b: [u32; 4], p: u16, q: u16, check: u16) {
            let once = apply(check, add(diff_addr(&a, &b), diff16(p, q)));
            let twice = apply(apply(check, diff_addr(&a, &b)), diff16(p, q));
            prop_assert!(same(once, twice));
        }

        #[test]
        fn there_and_back_is_nothing(a: [u32; 4], b: [u32; 4], check: u16) {
            prop_assert!(same(apply(apply(check, diff_addr(&a, &b)), diff_addr(&b, &a)), check));
        }
    }
}
