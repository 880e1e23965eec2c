//! Golden cases: one YAML file each under `testdata/`, made of a comment with the rule and its source, input documents, and
//! after the line `--- # expected` what the rule demands of them.
//!
//! The first document may be `kind: Settings` (see [`case::Options`]). `UPDATE_GOLDEN=1 cargo test -p pierhead-translate
//! --test golden` rewrites what is expected: read the diff against the rule before committing it. `GOLDEN=text` runs only the
//! files whose path contains the text. Files under `testdata/lib/` are no cases: others include them.

#[path = "golden/case.rs"]
mod case;
#[path = "golden/emit.rs"]
mod emit;
#[path = "golden/invariants.rs"]
mod invariants;
#[path = "golden/objects.rs"]
mod objects;
#[path = "golden/travel.rs"]
mod travel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use case::Case;
use pierhead_model::Snapshot;
use pierhead_translate::{Settings, Statuses, translate, translate_from};

const MARKER: &str = "--- # expected";

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if !path.ends_with("lib") {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

/// Nothing changed, so every value is the same allocation.
fn shared(before: &Snapshot, after: &Snapshot) -> Result<(), String> {
    fn same<'a, V: 'a>(before: impl Iterator<Item = &'a Arc<V>>, after: impl Iterator<Item = &'a Arc<V>>) -> bool {
        before.zip(after).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    let all = same(before.binds.values(), after.binds.values())
        && same(before.routes.values(), after.routes.values())
        && same(before.backends.values(), after.backends.values())
        && same(before.endpoints.values(), after.endpoints.values())
        && same(before.certificates.values(), after.certificates.values())
        && same(before.trust.values(), after.trust.values())
        && same(before.fleet.values(), after.fleet.values());
    if all {
        Ok(())
    } else {
        Err("an unchanged value was not shared with the previous translation".to_owned())
    }
}

/// Of routes, policies and classes a replica that does not know the nodes yet, and gives no addresses, says what it will say when it
/// does: it may write those.
fn says_the_same_without_nodes(case: &Case, with_nodes: &Statuses) -> Result<(), String> {
    let alone = Settings {
        allocate: false,
        allocations: BTreeMap::new(),
        nodes: Some(BTreeSet::new()),
        held: BTreeMap::new(),
        machine_addresses: Vec::new(),
        shown_addresses: Some(Vec::new()),
        ..case.settings.clone()
    };
    let mut statuses = translate(&case.world, &alone).statuses;
    // Nodes have a say in these.
    statuses.ingresses = with_nodes.ingresses.clone();
    statuses.gateways = with_nodes.gateways.clone();
    statuses.listener_sets = with_nodes.listener_sets.clone();
    if statuses == *with_nodes {
        Ok(())
    } else {
        Err(format!(
            "without nodes routes, policies or classes say something else: {}",
            serde_json::to_string(&statuses).map_err(|error| error.to_string())?
        ))
    }
}

/// `Err` is what is wrong with the case.
fn run(root: &Path, path: &Path, update: bool) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    if !text.starts_with("# ") {
        return Err("does not start with a comment that names the rule and its source".to_owned());
    }
    let (input, expected) = match text.split_once(&format!("\n{MARKER}\n")) {
        Some((input, expected)) => (input, expected),
        None if update => (text.trim_end(), ""),
        None => {
            return Err(format!(
                "has no expectation after a line {MARKER:?}: write it, or UPDATE_GOLDEN=1"
            ));
        }
    };
    let case = Case::parse(input, &root.join("lib"))?;
    let translation = translate(&case.world, &case.settings);
    if translation != translate(&case.world, &case.settings) {
        return Err("two translations of one world differ".to_owned());
    }
    let again = translate_from(&case.world, &case.settings, Some(&translation));
    if again != translation {
        return Err("a translation that knows the previous one differs from it".to_owned());
    }
    shared(&translation.snapshot, &again.snapshot)?;
    says_the_same_without_nodes(&case, &translation.statuses)?;
    invariants::check(&translation)?;
    travel::check(&translation.snapshot)?;
    let actual = emit::sections(&translation, &case.options);
    if actual.trim().is_empty() {
        return Err("shows nothing: select sections that say something".to_owned());
    }
    if actual == expected {
        return Ok(());
    }
    if update {
        return fs::write(path, format!("{}\n{MARKER}\n{actual}", input.trim_end())).map_err(|e| e.to_string());
    }
    Err(format!("- expected, + translated:\n{}", diff(expected, &actual)))
}

/// Line by line, by longest common subsequence.
fn diff(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        let (sign, line) = if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            (' ', a[i - 1])
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', a[i - 1])
        } else {
            j += 1;
            ('+', b[j - 1])
        };
        out.push_str(&format!("  {sign} {line}\n"));
    }
    out
}

#[test]
fn every_case_translates_as_its_rule_demands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let only = std::env::var("GOLDEN").unwrap_or_default();
    let mut cases = Vec::new();
    files(&root, &mut cases);
    cases.retain(|path| path.to_string_lossy().contains(&only));
    assert!(!cases.is_empty(), "no case under {}", root.display());
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|path| {
            let why = run(&root, path, update).err()?;
            Some(format!("{}: {why}", path.strip_prefix(&root).unwrap_or(path).display()))
        })
        .collect();
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "{} golden cases, {} failed", cases.len(), failures.len()).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_difference_is_shown_by_line() {
    assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), "    a\n  - b\n  + x\n    c\n");
}
