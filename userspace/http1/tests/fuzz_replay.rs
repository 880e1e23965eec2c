//! Everything the fuzzer ever found, and the whole corpus, through the body of the fuzz target.

mod support;

use std::path::Path;

use support::{case, fuzz_body};

#[test]
fn the_committed_fuzz_corpus_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/streams");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the fuzz corpus") {
        fuzz_body::run(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count >= 40, "{count} seeds");
}

#[test]
fn the_corpus_passes_in_pieces_of_any_size() {
    for (folder, sides) in [("requests", &[1, 0x81][..]), ("responses", &[0, 2, 4, 0x80])] {
        for case in case::load(folder).iter().filter(|case| case.wire.len() < 3000) {
            for piece in [1, 2, 3, 7, 31] {
                for &side in sides {
                    fuzz_body::run(&[&[side, piece][..], &case.wire].concat());
                }
            }
        }
    }
}
