//! Reads the corpus.
//!
//! A file holds cases:
//!
//! ```text
//! === name-of-the-case
//! why: the rule, with its section
//! want: accept "body" accept "" reject BareLf
//! ---
//! POST / HTTP/1.1\r\n
//! …
//! ```
//!
//! Keys: `why` (required), `want` (required), `method` (of the request that a response answers; GET),
//! `laxer` (why we accept what hyper refuses), `differs` (why we decode it otherwise than hyper).
//! `want` is a run of `accept "BODY"`, then nothing (clean end), `reject ERROR`, `incomplete` or `extra`.
//! In bytes and in BODY, `\r \n \t \0 \\ \" \xNN` are escapes, `\*N(TEXT)` repeats TEXT N times; line ends of the file
//! count for nothing.

use std::path::Path;

/// One entry of the corpus.
#[derive(Debug)]
pub struct Case {
    /// File and name.
    pub name: String,
    pub bodies: Vec<Vec<u8>>,
    pub ending: String,
    pub method: String,
    pub laxer: Option<String>,
    pub differs: Option<String>,
    pub wire: Vec<u8>,
}

/// All cases in the files of `corpus/<folder>`, by file name.
pub fn load(folder: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&path)
        .expect("the corpus folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a corpus file in UTF-8");
        cases.extend(text.split("=== ").skip(1).map(|part| parse(&stem, part)));
    }
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases share a name");
    cases
}

fn parse(stem: &str, part: &str) -> Case {
    let (name, rest) = part.split_once('\n').expect("a line with the name");
    let name = format!("{stem}/{}", name.trim());
    let (keys, bytes) = rest
        .split_once("---\n")
        .unwrap_or_else(|| panic!("{name}: no --- line"));
    let key = |wanted: &str| {
        keys.lines()
            .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
    };
    for line in keys.lines() {
        let known = ["why", "want", "method", "laxer", "differs"];
        assert!(
            line.split_once(':').is_some_and(|(key, _)| known.contains(&key)),
            "{name}: unknown key in {line:?}"
        );
    }
    assert!(key("why").is_some_and(|why| !why.is_empty()), "{name}: says not why");
    let want = key("want").unwrap_or_else(|| panic!("{name}: wants nothing"));
    let (bodies, ending) = expectation(&want);
    Case {
        bodies,
        ending,
        method: key("method").unwrap_or_else(|| "GET".to_owned()),
        laxer: key("laxer"),
        differs: key("differs"),
        wire: unescape(&bytes.replace('\n', "")),
        name,
    }
}

fn expectation(want: &str) -> (Vec<Vec<u8>>, String) {
    let mut bodies = Vec::new();
    let mut rest = want;
    while let Some(quoted) = rest.strip_prefix("accept \"") {
        let mut end = 0;
        while !quoted[end..].starts_with('"') {
            end += if quoted[end..].starts_with('\\') { 2 } else { 1 };
        }
        bodies.push(unescape(&quoted[..end]));
        rest = quoted[end + 1..].trim_start();
    }
    (bodies, rest.to_owned())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest[at + 1..].chars().next().expect("an escape");
        rest = &rest[at + 2..];
        match code {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            '"' => out.push(b'"'),
            'x' => {
                out.push(u8::from_str_radix(&rest[..2], 16).expect("two hex digits"));
                rest = &rest[2..];
            }
            '*' => {
                let (count, after) = rest.split_once('(').expect("\\*N(TEXT)");
                let (text, after) = after.split_once(')').expect("\\*N(TEXT)");
                let piece = unescape(text);
                for _ in 0..count.parse().expect("a number") {
                    out.extend_from_slice(&piece);
                }
                rest = after;
            }
            other => panic!("unknown escape \\{other}"),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
