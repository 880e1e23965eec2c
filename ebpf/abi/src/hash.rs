//! The hash of a flow. 64-bit multiplications only: there is no 128-bit one in the kernel.

use crate::addr::{Addr, Port};

/// The finaliser of SplitMix64: every input bit reaches every output bit.
#[inline(always)]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[inline(always)]
const fn absorb(state: u64, word: u64) -> u64 {
    mix(state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
const fn halves(addr: &Addr) -> (u64, u64) {
    let a = &addr.0;
    (((a[0] as u64) << 32) | a[1] as u64, ((a[2] as u64) << 32) | a[3] as u64)
}

/// Hash of a flow as the client sees it. The same on every node that has the same seed.
#[inline(always)]
pub const fn flow(seed: u64, protocol: u8, client: &Addr, client_port: Port, local: &Addr, local_port: Port) -> u64 {
    let (c_hi, c_lo) = halves(client);
    let (l_hi, l_lo) = halves(local);
    let rest = ((protocol as u64) << 32) | ((client_port.0 as u64) << 16) | local_port.0 as u64;
    let h = absorb(seed, c_hi ^ l_hi.rotate_left(32));
    let h = absorb(h, c_lo);
    let h = absorb(h, l_lo);
    mix(h ^ rest)
}

/// Scales a hash to `0..n` without a division. `n` is at most 2^32; for `n == 0` the answer is 0.
#[inline(always)]
pub const fn scale(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        #[test]
        fn a_scaled_hash_is_in_range(hash: u64, n in 1u32..) {
            prop_assert!(scale(hash, n) < n);
        }

        #[test]
        fn every_field_changes_the_hash(seed: u64, c: u32, l: u32, cp: u16, lp: u16, bit in 0u32..16) {
            let base = |c: u32, cp: u16, l: u32, lp: u16, proto: u8| {
                flow(seed, proto, &Addr::from_v4_word(c), Port(cp), &Addr::from_v4_word(l), Port(lp))
            };
            let h = base(c, cp, l, lp, 6);
            prop_assert_ne!(h, base(c ^ (1 << bit), cp, l, lp, 6));
            prop_assert_ne!(h, base(c, cp ^ (1 << bit), l, lp, 6));
            prop_assert_ne!(h, base(c, cp, l ^ (1 << bit), lp, 6));
            prop_assert_ne!(h, base(c, cp, l, lp ^ (1 << bit), 6));
            prop_assert_ne!(h, base(c, cp, l, lp, 17));
        }
    }

    #[test]
    fn sequential_ports_spread_evenly() {
        let mut buckets = vec![0u32; 64];
        for port in 0..64_000u32 {
            let h = flow(
                1,
                6,
                &Addr::v4([192, 0, 2, 1]),
                Port::new(port as u16),
                &Addr::v4([198, 51, 100, 1]),
                Port::new(80),
            );
            buckets[scale(h, 64) as usize] += 1;
        }
        // 1,000 each expected, sigma about 31: six sigma.
        assert!(buckets.iter().all(|&n| (814..=1186).contains(&n)), "{buckets:?}");
    }

    /// Golden: two builds that disagree would send one flow to two endpoints.
    #[test]
    fn the_hash_is_the_same_forever() {
        let h = flow(
            42,
            6,
            &Addr::v4([192, 0, 2, 1]),
            Port::new(40_000),
            &Addr::v4([198, 51, 100, 1]),
            Port::new(443),
        );
        assert_eq!(h, GOLDEN, "{h:#x}");
    }
    const GOLDEN: u64 = 0x0297_25b4_af8d_b907;
}
