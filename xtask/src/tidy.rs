//! Rules about the tree that the compiler cannot hold: what README says is so, and `unsafe` stays where it may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{VERBS, sh};

/// The folders whose code may be unsafe, each use with its `// SAFETY:`.
const UNSAFE_ALLOWED: &[&str] = &["ebpf", "userspace/kernel"];

/// Folders that hold no source of ours.
const NOT_OURS: &[&str] = &["target", ".git"];

pub(crate) fn check() -> Result<()> {
    let root = sh::root();
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    let verbs: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    let mut wrong = readme_against_verbs(&readme, &verbs);
    wrong.extend(readme_against_tree(&readme, &top_folders(root)?, |path| {
        root.join(path).exists()
    }));
    for file in rust_files(root)? {
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))?;
        wrong.extend(unsafe_out_of_place(&path, &text));
    }
    if wrong.is_empty() {
        sh::say("README and tree agree; unsafe stays where it may be");
        return Ok(());
    }
    bail!("the tree is not tidy:\n  {}", wrong.join("\n  "))
}

/// Every verb that README names exists, and README names the two main ones.
fn readme_against_verbs(readme: &str, verbs: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for rest in readme.split("cargo xtask ").skip(1) {
        let verb: String = rest
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        if !verb.is_empty() && !verbs.contains(&verb.as_str()) {
            wrong.push(format!("README.md: `cargo xtask {verb}` does not exist"));
        }
        named.insert(verb);
    }
    for main in ["demo", "test"] {
        if !named.contains(main) {
            wrong.push(format!("README.md: does not say `cargo xtask {main}`"));
        }
    }
    wrong
}

/// The map is the fenced block after the heading that ends in `map`: a path per line, deeper ones indented.
fn readme_against_tree(readme: &str, top_folders: &BTreeSet<String>, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let paths = mapped_paths(readme);
    if paths.is_empty() {
        return vec!["README.md: has no map of the tree".to_owned()];
    }
    let missing = paths
        .iter()
        .filter(|path| !exists(path))
        .map(|path| format!("README.md: maps `{path}`, which is not there"));
    let unmapped = top_folders
        .iter()
        .filter(|folder| !paths.contains(&format!("{folder}/")))
        .map(|folder| format!("README.md: does not map `{folder}/`"));
    missing.chain(unmapped).collect()
}

fn mapped_paths(readme: &str) -> Vec<String> {
    let mut in_section = false;
    let mut in_block = false;
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut paths = Vec::new();
    for line in readme.lines() {
        if !in_block && line.starts_with('#') {
            in_section = line.to_lowercase().trim_end().ends_with("map");
        }
        if line.starts_with("```") {
            in_block = !in_block && in_section;
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let Some(name) = line.split_whitespace().next().filter(|_| in_block) else {
            continue;
        };
        // A line that goes on from the one above starts far to the right.
        if indent > 8 {
            continue;
        }
        while parents.last().is_some_and(|(depth, _)| *depth >= indent) {
            parents.pop();
        }
        let path = parents
            .last()
            .map_or_else(|| name.to_owned(), |(_, parent)| format!("{parent}{name}"));
        parents.push((indent, path.clone()));
        paths.push(path);
    }
    paths
}

/// The compiler's lint is on everywhere: what could escape it is a line that lifts it.
fn unsafe_out_of_place(path: &str, text: &str) -> Vec<String> {
    if UNSAFE_ALLOWED
        .iter()
        .any(|allowed| Path::new(path).starts_with(allowed))
    {
        return Vec::new();
    }
    let lifted = if path.ends_with("Cargo.toml") {
        manifest_lifts(text)
    } else {
        source_lifts(text)
    };
    lifted
        .then(|| format!("{path}: unsafe code is allowed only in {}", UNSAFE_ALLOWED.join(", ")))
        .into_iter()
        .collect()
}

fn source_lifts(text: &str) -> bool {
    let flat: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect();
    ["allow(", "expect(", "warn("].iter().any(|lint| {
        flat.split(lint).skip(1).any(|rest| {
            rest.split(')')
                .next()
                .is_some_and(|names| names.contains("unsafe_code"))
        })
    })
}

fn manifest_lifts(text: &str) -> bool {
    // A workspace of its own cannot inherit ours, and is not shipped: fuzz targets.
    let is_ours = text.contains("[package]") && !text.contains("[workspace]");
    is_ours
        && !text
            .split("[lints]")
            .nth(1)
            .is_some_and(|rest| rest.trim_start().starts_with("workspace = true"))
}

/// The folders of the root that are ours.
fn top_folders(root: &Path) -> Result<BTreeSet<String>> {
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(root).context("cannot list the root")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
            folders.insert(name);
        }
    }
    Ok(folders)
}

/// Every Rust source and manifest of ours.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.iter().any(|skip| name == *skip) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") || name == "Cargo.toml" {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "# X\n`cargo xtask demo` and `cargo xtask test`.\n\n## The map\n\n```\nxtask/     verbs\nebpf/      programs,\n               on two lines\n  abi/     shared\n```\n";

    fn folders(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_map_is_read_with_its_indentation() {
        assert_eq!(mapped_paths(README), ["xtask/", "ebpf/", "ebpf/abi/"]);
    }

    #[test]
    fn a_true_readme_passes() {
        assert!(readme_against_tree(README, &folders(&["xtask", "ebpf"]), |_| true).is_empty());
        assert!(readme_against_verbs(README, &["demo", "test"]).is_empty());
    }

    #[test]
    fn a_folder_that_is_gone_and_one_that_is_not_mapped_are_told() {
        assert_eq!(
            readme_against_tree(README, &folders(&["xtask", "ebpf"]), |path| path != "ebpf/abi/").len(),
            1
        );
        assert_eq!(
            readme_against_tree(README, &folders(&["xtask", "ebpf", "new"]), |_| true).len(),
            1
        );
        assert_eq!(readme_against_tree("no map", &folders(&[]), |_| true).len(), 1);
    }

    #[test]
    fn an_unknown_verb_and_a_missing_one_are_told() {
        assert_eq!(readme_against_verbs(README, &["demo"]).len(), 1);
        assert_eq!(readme_against_verbs("`cargo xtask demo`", &["demo", "test"]).len(), 1);
    }

    #[test]
    fn lifting_the_unsafe_lint_is_told_outside_its_folders() {
        // In two pieces, or this file would be told as well.
        let lift = format!("#![allow(unsafe_{}, reason = \"x\")]", "code");
        assert_eq!(unsafe_out_of_place("userspace/model/src/lib.rs", &lift).len(), 1);
        assert!(unsafe_out_of_place("userspace/kernel/src/lib.rs", &lift).is_empty());
        assert!(unsafe_out_of_place("ebpf/abi/src/lib.rs", &lift).is_empty());
        assert!(unsafe_out_of_place("userspace/model/src/lib.rs", &format!("// {lift}")).is_empty());
    }

    #[test]
    fn a_manifest_without_the_workspace_lints_is_told() {
        let own = "[package]\nname = \"x\"\n[lints]\nrust.x = \"deny\"\n";
        assert_eq!(unsafe_out_of_place("userspace/model/Cargo.toml", own).len(), 1);
        assert_eq!(
            unsafe_out_of_place("userspace/model/Cargo.toml", "[package]\n").len(),
            1
        );
        assert!(unsafe_out_of_place("userspace/model/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").is_empty());
        assert!(unsafe_out_of_place("userspace/kernel/Cargo.toml", own).is_empty());
        assert!(unsafe_out_of_place("Cargo.toml", "[workspace]\n").is_empty());
        assert!(unsafe_out_of_place("userspace/http1/fuzz/Cargo.toml", "[package]\n[workspace]\n").is_empty());
    }
}
