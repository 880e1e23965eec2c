//! Writes cpio archives in memory, in the format that the kernel takes as its first file system ("newc").

use std::collections::BTreeSet;

/// An archive that grows.
#[derive(Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// Names and contents begin at multiples of it.
const ALIGN: usize = 4;

impl Cpio {
    /// Adds a file of root at an absolute path, and the folders that lead to it.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER | 0o755, &[]);
            }
        }
        self.entry(path, FILE | permissions, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let number = |length: usize| u32::try_from(length).expect("what fits into memory of a small machine");
        let header = [
            self.entries,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            number(content.len()),
            0, // device
            0,
            0, // device that a special file stands for
            0,
            number(path.len() + 1),
            0, // checksum, of another format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and content of every entry, read by the format's own description.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let field = |n: usize| {
                let hex = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(hex, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let path = String::from_utf8(bytes[110..110 + name - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name - 1], 0);
            let at = (110 + name).next_multiple_of(4);
            if path == "TRAILER!!!" {
                return found;
            }
            found.push((path, mode, bytes[at..at + size].to_vec()));
            bytes = &bytes[at + size.next_multiple_of(4)..];
        }
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut cpio = Cpio::default();
        cpio.file("/lib/x/a", 0o755, b"12345");
        cpio.file("/lib/b", 0o644, b"");
        cpio.file("init", 0o755, b"1234");
        let found = read(&cpio.finish());
        let entries: Vec<_> = found.iter().map(|(path, mode, _)| (path.as_str(), *mode)).collect();
        assert_eq!(
            entries,
            [
                ("lib", 0o040_755),
                ("lib/x", 0o040_755),
                ("lib/x/a", 0o100_755),
                ("lib/b", 0o100_644),
                ("init", 0o100_755),
            ]
        );
        assert_eq!(
            (found[2].2.as_slice(), found[4].2.as_slice()),
            (&b"12345"[..], &b"1234"[..])
        );
    }
}
