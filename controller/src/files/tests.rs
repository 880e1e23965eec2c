//! Folders on a real file system: what is read, what is kept, what is said.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use pierhead_translate::Settings;
use tempfile::TempDir;

use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(folder.path(), path, text);
    }
    folder
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn service(name: &str) -> String {
    SERVICE.replace("web", name)
}

fn names(folder: &Folder) -> Vec<String> {
    folder
        .world()
        .services
        .iter()
        .map(|one| one.metadata.name.clone().unwrap())
        .collect()
}

fn lines(folder: &Folder) -> Vec<String> {
    folder.problems().iter().map(ToString::to_string).collect()
}

/// Long enough after now that nothing counts as fresh or just gone.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[test]
fn yaml_json_lists_and_sub_folders_are_read_and_dot_files_are_not() {
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}]}}",
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "listed"}, "spec": {"ports": [{"port": 1}]}}"#
    );
    let dir = folder(&[
        (
            "a.yaml",
            &format!("# nothing\n---\n{}---\n{}", service("one"), service("two")),
        ),
        ("b.json", &list),
        ("deep/er/c.yml", &service("deep")),
        (".hidden.yaml", &service("hidden")),
        (".git/x.yaml", &service("git")),
        ("a.yaml~", &service("backup")),
        ("README.md", "no manifest"),
        (
            "other.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
        ),
    ]);
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(names(&folder), ["deep", "listed", "one", "two"]);
    assert_eq!(lines(&folder), Vec::<String>::new());
    let ignored = folder.ignored();
    assert_eq!(
        (ignored.len(), &*ignored[0].kind, ignored[0].count),
        (1, "Deployment", 1)
    );
}

#[test]
fn namespaces_that_are_used_exist() {
    let dir = folder(&[("a.yaml", &SERVICE.replace("name: web", "name: web, namespace: shop"))]);
    let world = Folder::open(dir.path()).unwrap().world();
    let namespace = world.namespaces.get("", "shop").unwrap();
    assert_eq!(
        namespace.metadata.labels.as_ref().unwrap()["kubernetes.io/metadata.name"],
        "shop"
    );
    assert!(world.namespaces.get("", "default").is_some());
}

#[test]
fn a_problem_names_file_line_object_field_and_fix() {
    let dir = folder(&[(
        "a.yaml",
        &format!(
            "{}---\n{}",
            service("good"),
            SERVICE.replace("{ports: [{port: 80}]}", "\n  ports:\n  - prot: 80")
        ),
    )]);
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(names(&folder), ["good"], "what stands beside it is not hurt");
    assert_eq!(
        lines(&folder),
        [
            "a.yaml:11: Service default/web: spec.ports[0].port: required field is missing; fix: add \"port\"",
            "a.yaml:11: Service default/web: spec.ports[0].prot: unknown field \"prot\"; fix: did you mean \"port\"?",
        ]
    );
}

#[test]
fn a_bad_change_keeps_the_last_good_state() {
    let dir = folder(&[
        ("a.yaml", &format!("{}---\n{}", service("one"), service("two"))),
        ("b.yaml", &service("other")),
    ]);
    let mut folder = Folder::open(dir.path()).unwrap();

    // Not YAML any more: everything in it stays.
    write(dir.path(), "a.yaml", "a: [");
    assert!(folder.scan(later()).changed);
    assert_eq!(names(&folder), ["one", "other", "two"]);
    let said = lines(&folder);
    assert!(
        said.len() == 1 && said[0].starts_with("a.yaml:") && said[0].contains("stays in force"),
        "{said:?}"
    );

    // One object refused, one removed, one added: only the refused one stays as it was.
    write(
        dir.path(),
        "a.yaml",
        &format!(
            "{}---\n{}",
            SERVICE.replace("web", "one").replace("80", "0"),
            service("three")
        ),
    );
    assert!(folder.scan(later()).changed);
    assert_eq!(names(&folder), ["one", "other", "three"]);
    let world = folder.world();
    let one = world.services.get("default", "one").unwrap();
    assert_eq!(one.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port, 80);
    assert!(lines(&folder)[0].contains("0 is not a port"));

    // Good again: nothing is left of it.
    write(dir.path(), "a.yaml", &service("three"));
    assert!(folder.scan(later()).changed);
    assert_eq!(names(&folder), ["other", "three"]);
    assert_eq!(lines(&folder), Vec::<String>::new());
}

#[test]
fn what_is_said_of_a_file_goes_with_it() {
    let bad = SERVICE.replace("80", "0");
    let unused = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n";
    let dir = folder(&[("bad.yaml", &bad), ("unused.yaml", unused), ("web.yaml", SERVICE)]);
    let mut folder = Folder::open(dir.path()).unwrap();
    let said = |folder: &Folder| (folder.problems().len(), folder.ignored().len(), folder.is_empty());
    assert_eq!(said(&folder), (1, 1, false));
    // What is mended is bad no more, what comes to be unused is counted.
    write(dir.path(), "bad.yaml", unused);
    folder.scan(later());
    assert_eq!(said(&folder), (0, 1, false));
    assert_eq!(folder.ignored()[0].count, 2);
    for (file, expected) in [
        ("unused.yaml", (0, 1, false)),
        ("bad.yaml", (0, 0, false)),
        ("web.yaml", (0, 0, true)),
    ] {
        fs::remove_file(dir.path().join(file)).unwrap();
        folder.scan(later());
        folder.scan(later() + Duration::from_secs(60));
        assert_eq!(said(&folder), expected, "without {file}");
    }
}

#[test]
fn of_two_objects_with_one_name_the_first_file_counts() {
    let dir = folder(&[("a.yaml", SERVICE), ("b.yaml", &SERVICE.replace("80", "81"))]);
    let mut folder = Folder::open(dir.path()).unwrap();
    assert_eq!(
        lines(&folder),
        ["b.yaml:1: Service default/web: is also in a.yaml:1, which counts; fix: remove or rename one"]
    );
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert!(
        !folder.scan(SystemTime::now()).unsettled.is_empty(),
        "editors replace files in two steps"
    );
    assert_eq!(lines(&folder).len(), 1);
    folder.scan(later());
    assert_eq!(lines(&folder), Vec::<String>::new());
}

#[test]
fn generation_counts_changes_of_the_spec_and_unchanged_objects_are_shared() {
    let dir = folder(&[("a.yaml", &format!("{}---\n{}", service("one"), service("two")))]);
    let mut folder = Folder::open(dir.path()).unwrap();
    let before = folder.world();
    write(
        dir.path(),
        "a.yaml",
        &format!("{}---\n{}", service("one"), service("two").replace("80", "81")),
    );
    folder.scan(later());
    let after = folder.world();
    let get = |world: &pierhead_translate::World, name| world.services.get("default", name).unwrap().clone();
    assert!(std::sync::Arc::ptr_eq(&get(&before, "one"), &get(&after, "one")));
    assert_eq!(get(&after, "one").metadata.generation, Some(1));
    assert_eq!(get(&after, "two").metadata.generation, Some(2));
    write(
        dir.path(),
        "a.yaml",
        &service("two")
            .replace("80", "81")
            .replace("name: two", "name: two, labels: {a: b}"),
    );
    folder.scan(later());
    let last = get(&folder.world(), "two");
    assert_eq!(
        (last.metadata.generation, last.metadata.labels.is_some()),
        (Some(2), true)
    );
}

#[test]
fn a_large_file_is_read_like_a_small_one() {
    let text = |ports: u32| {
        let port = |number| format!("port: {}", 1 + number % ports);
        let one = |number| service(&format!("s{number:05}")).replace("port: 80", &port(number));
        (0..4_000).map(one).collect::<Vec<_>>().join("---\n") + "---\napiVersion: v1\nkind: Service\n"
    };
    let dir = folder(&[("a.yaml", &text(7))]);
    assert!(text(7).len() > 300_000);
    let mut folder = Folder::open(dir.path()).unwrap();
    let before = folder.world();
    assert_eq!((before.services.len(), lines(&folder).len()), (4_000, 1));
    write(dir.path(), "a.yaml", &text(7).replacen("port: 3", "port: 99", 1));
    assert!(folder.scan(later()).changed);
    let after = folder.world();
    let differ = before.services.iter().zip(after.services.iter());
    let differ: Vec<_> = differ
        .filter(|(a, b)| !std::sync::Arc::ptr_eq(a, b))
        .map(|(_, b)| b.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(differ, ["s00002"], "the others are what they were");
}

#[test]
fn what_did_not_change_keeps_its_place_right_when_lines_move() {
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {x: 1}\n";
    let dir = folder(&[("a.yaml", &format!("{SERVICE}---\n{bad}"))]);
    let mut folder = Folder::open(dir.path()).unwrap();
    write(
        dir.path(),
        "a.yaml",
        &format!("{}---\n{SERVICE}---\n{bad}---\n{SERVICE}", service("new")),
    );
    folder.scan(later());
    let said = lines(&folder);
    assert!(
        said.iter()
            .any(|line| line.starts_with("a.yaml:14: Service default/bad: spec.x: ")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("a.yaml:16: Service default/web: is also in a.yaml:6,")),
        "{said:#?}"
    );
}

#[test]
fn absurd_and_unreadable_files_cost_only_themselves() {
    let dir = folder(&[
        ("good.yaml", SERVICE),
        ("latin1.yaml", ""),
        ("deep.yaml", &"[".repeat(100_000)),
    ]);
    fs::write(dir.path().join("latin1.yaml"), b"a: \n\xe9").unwrap();
    let large = fs::File::create(dir.path().join("large.yaml")).unwrap();
    large.set_len(1 << 30).unwrap();
    symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
    symlink(".", dir.path().join("circle")).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(names(&folder), ["web"]);
    let said = lines(&folder);
    for part in [
        "latin1.yaml: is not UTF-8 (line 2); fix: save it as UTF-8",
        "deep.yaml:1: nested deeper than 64 levels: flatten it",
        "large.yaml: is larger than 64 MiB; fix: split it",
        "dangling.yaml: cannot read this file",
    ] {
        assert!(said.iter().any(|line| line.contains(part)), "{part:?} in {said:#?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_says_why() {
    let dir = folder(&[("file", "")]);
    let error = |path: &str| Folder::open(&dir.path().join(path)).unwrap_err().to_string();
    assert!(error("missing").contains("does not exist; fix: create the folder"));
    assert!(error("file").contains("is not a folder; fix:"));
}

#[test]
fn odd_documents_are_named() {
    let cases = [
        ("just text\n", "is no object; fix: start it with apiVersion and kind"),
        ("kind: Service\n", "without apiVersion; fix: add \"apiVersion\""),
        (
            "apiVersion: v1\nkind: Ingress\nmetadata: {name: a}\n",
            "v1 has no Ingress; fix: use networking.k8s.io/v1",
        ),
        (
            "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n",
            "use networking.k8s.io/v1",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: a}\n",
            "is not served; fix: use gateway.networking.k8s.io/v1 or",
        ),
        (
            "a: 1\na: 2\n",
            "a.yaml:2: key \"a\" is given twice (first on line 1): keep one",
        ),
    ];
    for (text, part) in cases {
        let dir = folder(&[("a.yaml", text)]);
        let said = lines(&Folder::open(dir.path()).unwrap());
        assert!(said.len() == 1 && said[0].contains(part), "{part:?} in {said:?}");
    }
    let dir = folder(&[(
        "a.yaml",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n",
    )]);
    assert_eq!(
        Folder::open(dir.path()).unwrap().ignored().len(),
        1,
        "another group's kind of that name"
    );
}

/// Looks at these files only.
fn look(folder: &mut Folder, dir: &TempDir, paths: &[&str], now: SystemTime) -> Option<bool> {
    let paths = paths.iter().map(|path| dir.path().join(path)).collect();
    folder.look(&paths, now).map(|scan| scan.changed)
}

#[test]
fn what_is_named_is_read_and_nothing_else() {
    let dir = folder(&[
        ("a.yaml", &service("a")),
        ("b.yaml", &service("b")),
        ("in/c.yaml", &service("c")),
    ]);
    let mut folder = Folder::open(dir.path()).unwrap();
    write(dir.path(), "a.yaml", &service("a").replace("80", "81"));
    write(dir.path(), "b.yaml", &service("other"));
    assert_eq!(look(&mut folder, &dir, &["a.yaml"], later()), Some(true));
    assert_eq!(names(&folder), ["a", "b", "c"]);
    let world = folder.world();
    let port = |world: &pierhead_translate::World, name| {
        let service = world.services.get("default", name).unwrap();
        service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port
    };
    assert_eq!(port(&world, "a"), 81);
    // Another name, a new file, one that went, and files that are none of ours.
    write(dir.path(), "new.yml", &service("new"));
    write(dir.path(), ".hidden.yaml", &service("hidden"));
    write(dir.path(), "notes.txt", "x");
    fs::remove_file(dir.path().join("in/c.yaml")).unwrap();
    let named = [
        "b.yaml",
        "new.yml",
        "in/c.yaml",
        ".hidden.yaml",
        "notes.txt",
        "never.yaml",
    ];
    assert_eq!(look(&mut folder, &dir, &named, SystemTime::now()), Some(true));
    assert_eq!(names(&folder), ["a", "c", "new", "other"], "c may come back");
    assert_eq!(look(&mut folder, &dir, &["in/c.yaml"], later()), Some(true));
    assert_eq!(
        (names(&folder), folder.len()),
        (vec!["a".into(), "new".into(), "other".into()], 3)
    );
    assert_eq!(look(&mut folder, &dir, &named, later()), Some(false));
    // It came to what reading everything comes to.
    let fresh = Folder::open(dir.path()).unwrap();
    assert_eq!(format!("{:?}", folder.world()), format!("{:?}", fresh.world()));
    assert_eq!(lines(&folder), lines(&fresh));
}

#[test]
fn where_names_do_not_say_enough_everything_is_looked_at() {
    let dir = folder(&[("a.yaml", &service("a")), ("in/b.yaml", &service("b"))]);
    let mut folder = Folder::open(dir.path()).unwrap();
    assert_eq!(look(&mut folder, &dir, &["a.yaml", "in/b.yaml"], later()), Some(false));
    // Folders that come, go and change their names, also where they are called like a manifest.
    write(dir.path(), "new.yaml/c.yaml", &service("c"));
    for path in ["", "in", "new.yaml", "new.yaml/c.yaml"] {
        assert_eq!(look(&mut folder, &dir, &[path], later()), None, "{path:?}");
    }
    fs::rename(dir.path().join("in"), dir.path().join("out")).unwrap();
    assert_eq!(look(&mut folder, &dir, &["in"], later()), None);
    assert!(folder.scan(later()).unsettled.contains(Path::new("in/b.yaml")));
    assert_eq!(look(&mut folder, &dir, &["out/b.yaml"], later()), Some(false));
    // A link, and from then on everything.
    symlink("a.yaml", dir.path().join("link.yaml")).unwrap();
    assert_eq!(look(&mut folder, &dir, &["link.yaml"], later()), None);
    folder.scan(later());
    assert!(folder.is_linked());
    assert_eq!(look(&mut folder, &dir, &["a.yaml"], later()), None);
    fs::remove_file(dir.path().join("link.yaml")).unwrap();
    folder.scan(later());
    assert!(!folder.is_linked());
}

#[test]
fn of_two_objects_with_one_name_looking_at_one_file_decides_too() {
    let dir = folder(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]);
    let mut folder = Folder::open(dir.path()).unwrap();
    write(dir.path(), "b.yaml", &service("a").replace("80", "81"));
    assert_eq!(look(&mut folder, &dir, &["b.yaml"], later()), Some(true));
    assert_eq!((names(&folder), lines(&folder).len()), (vec!["a".to_owned()], 1));
    write(dir.path(), "b.yaml", &service("a").replace("80", "82"));
    assert_eq!(look(&mut folder, &dir, &["b.yaml"], later()), Some(true));
    let world = folder.world();
    let service = world.services.get("default", "a").unwrap();
    assert_eq!(
        service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port,
        80,
        "the first file's"
    );
}

fn start(dir: &Path, allocations: Option<std::path::PathBuf>) -> FileSource {
    FileSource::start(Options {
        folder: dir.to_owned(),
        settings: Box::new(|| Settings::new("2026-01-01T00:00:00Z".parse().unwrap())),
        allocations,
    })
    .unwrap()
}

/// Waits until the published state satisfies `done`.
#[track_caller]
fn wait(source: &FileSource, done: impl Fn(&Published) -> bool) {
    let receiver = source.subscribe();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(&receiver.borrow()) {
        assert!(Instant::now() < deadline, "still {:?}", receiver.borrow());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn changes_are_published_however_the_editor_makes_them() {
    let dir = folder(&[("a.yaml", SERVICE)]);
    let source = start(dir.path(), None);
    let path = dir.path().join("a.yaml");
    wait(&source, |now| now.objects == 1 && now.file_problems.is_empty());

    // In place.
    fs::write(&path, "a: [").unwrap();
    wait(&source, |now| now.objects == 1 && now.file_problems.len() == 1);
    // Aside, then renamed over it.
    write(
        dir.path(),
        ".a.yaml.tmp",
        &format!("{}---\n{}", service("one"), service("two")),
    );
    fs::rename(dir.path().join(".a.yaml.tmp"), &path).unwrap();
    wait(&source, |now| now.objects == 2 && now.file_problems.is_empty());
    // The old one moved away, a new one written (vim).
    fs::rename(&path, dir.path().join("a.yaml~")).unwrap();
    fs::write(&path, SERVICE.to_owned() + "---\nbad\n").unwrap();
    wait(&source, |now| now.objects == 3 && now.file_problems.len() == 1);
    // Removed.
    fs::remove_file(&path).unwrap();
    wait(&source, |now| now.objects == 0 && now.file_problems.is_empty());
    // In a folder that is new.
    write(dir.path(), "new/er/b.yaml", SERVICE);
    wait(&source, |now| now.objects == 1);
}

#[test]
fn mounted_config_maps_are_followed() {
    let dir = folder(&[
        ("..1/a.yaml", SERVICE),
        ("..2/a.yaml", &format!("{SERVICE}---\n{}", service("two"))),
    ]);
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let source = start(dir.path(), None);
    wait(&source, |now| now.objects == 1);
    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    wait(&source, |now| now.objects == 2);
}

#[test]
fn nothing_new_is_not_published() {
    let dir = folder(&[("a.yaml", SERVICE)]);
    let source = start(dir.path(), None);
    let seen = source.subscribe().borrow().version;
    write(dir.path(), "a.yaml", &(SERVICE.to_owned() + "# a comment\n"));
    write(dir.path(), "b.yaml", "a: [");
    wait(&source, |now| now.file_problems.len() == 1);
    assert_eq!(source.subscribe().borrow().version, seen + 1);
}
