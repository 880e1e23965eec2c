//! Writes tar archives in memory: the same content gives the same bytes.

/// An archive that grows.
#[derive(Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

/// Bytes of a block: everything in an archive is a multiple of it.
const BLOCK: usize = 512;

/// The longest path that fits the header of the plainest format.
const NAME: usize = 100;

impl Tar {
    /// Adds a folder. `path` is relative and ends without a slash.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.header(&format!("{path}/"), mode, b'5', 0);
    }

    /// Adds a file of root, without a date.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, mode, b'0', content.len());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, kind: u8, size: usize) {
        assert!(path.len() <= NAME, "{path} is too long a path for a plain tar header");
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}\0"));
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{size:011o}\0"));
        put(136, "00000000000\0");
        // The sum counts its own field as spaces.
        put(148, "        ");
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_itself_reads_what_we_write() {
        let mut tar = Tar::default();
        tar.folder("tmp", 0o1777);
        tar.file("bin/a", 0o755, &[b'x'; 700]);
        tar.file("b", 0o600, b"");
        let file = std::env::temp_dir().join(format!("pierhead-tar-{}", std::process::id()));
        fs::write(&file, tar.finish()).unwrap();
        let list = Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&file)
            .output()
            .unwrap();
        let content = Command::new("tar")
            .arg("-xOf")
            .arg(&file)
            .arg("bin/a")
            .output()
            .unwrap();
        fs::remove_file(&file).unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 3, "{list}");
        assert_eq!((lines[0][0], lines[0][5]), ("drwxrwxrwt", "tmp/"));
        assert_eq!((lines[1][0], lines[1][1], lines[1][2]), ("-rwxr-xr-x", "0/0", "700"));
        assert_eq!((lines[2][0], lines[2][2], lines[2][5]), ("-rw-------", "0", "b"));
        assert_eq!(content.stdout, [b'x'; 700]);
    }
}
