//! What stands in `examples/` has no problem: it is what people start from.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use pierhead_controller::files::Folder;
use pierhead_controller::{Settings, translate};

/// What a story leaves to its reader: no key is kept in a repository.
const READERS: &[&str] = &[
    "Secret default/example-com does not exist",
    "Secret default/demo does not exist",
];

fn folders() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&examples)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

#[test]
fn no_example_has_a_problem() {
    let folders = folders();
    assert!(folders.len() >= 6, "{folders:?}");
    for path in folders {
        let folder = Folder::open(&path).unwrap();
        let files = folder.problems();
        assert!(files.is_empty(), "{}: {files:?}", path.display());
        let settings = Settings {
            implied_class: Some("pierhead".into()),
            address_pools: vec!["10.96.0.0/24".parse().unwrap()],
            ..Settings::new(jiff::Timestamp::UNIX_EPOCH)
        };
        let translation = translate(&folder.world(), &settings);
        let told: Vec<&str> = translation
            .problems
            .iter()
            .map(|problem| problem.message.as_str())
            .filter(|message| !READERS.iter().any(|expected| message.contains(expected)))
            .collect();
        assert!(told.is_empty(), "{}: {told:?}", path.display());
    }
}
