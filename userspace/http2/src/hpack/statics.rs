//! The static table (RFC 7541 Appendix A), and its look-up by name and by field.

use super::hash;

/// Entry 1 is at 0.
pub(super) const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

const BUCKETS: usize = 256;

/// First entry (from 1) of each name, by hash, in the next free bucket.
static BY_NAME: [u8; BUCKETS] = by_name();

const fn bucket(hash: u32) -> usize {
    (hash >> 24) as usize % BUCKETS
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn by_name() -> [u8; BUCKETS] {
    let mut table = [0; BUCKETS];
    let mut entry = 0;
    while entry < STATIC.len() {
        let name = STATIC[entry].0;
        if entry == 0 || !same(STATIC[entry - 1].0, name) {
            let mut at = bucket(hash(0, name));
            while table[at] != 0 {
                at = (at + 1) % BUCKETS;
            }
            table[at] = entry as u8 + 1;
        }
        entry += 1;
    }
    table
}

/// The first entry of this name, from 1. `hashed` is the name's.
pub(super) fn find(name: &[u8], hashed: u32) -> Option<usize> {
    let mut at = bucket(hashed);
    loop {
        match BY_NAME[at] {
            0 => return None,
            entry if STATIC[usize::from(entry) - 1].0 == name => return Some(usize::from(entry)),
            _ => at = (at + 1) % BUCKETS,
        }
    }
}

/// The entry of this field among those of its name, of which `first` is the first.
pub(super) fn find_value(first: usize, value: &[u8]) -> Option<usize> {
    let name = STATIC[first - 1].0;
    let mut at = first - 1;
    while at < STATIC.len() && (at == first - 1 || STATIC[at].0 == name) {
        if STATIC[at].1 == value && !value.is_empty() {
            return Some(at + 1);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found() {
        for (at, (name, value)) in STATIC.iter().enumerate() {
            let first = find(name, hash(0, name)).unwrap();
            assert_eq!(STATIC[first - 1].0, *name);
            assert!(first <= at + 1);
            if !value.is_empty() {
                assert_eq!(find_value(first, value), Some(at + 1));
            }
        }
        assert_eq!(find(b"x-own", hash(0, b"x-own")), None);
        assert_eq!(find_value(2, b"PUT"), None);
    }
}
