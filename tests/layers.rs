//! The shape of the code: who may use whom, how long a file may be, and words that do not belong here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A part of the library, and which other parts it may use. `docs/architecture.md` has the reasons.
const MAY_USE: &[(&str, &[&str])] = &[
    // The places of the fault tests: no code at all in a release.
    ("failpoint", &[]),
    ("clock", &["failpoint"]),
    ("keys", &[]),
    ("channel", &["clock", "keys"]),
    ("api", &["channel::frames", "keys"]),
    ("plan", &["api", "channel::frames", "keys"]),
    ("telemetry", &["api", "channel::frames"]),
    ("postgres", &["api", "channel", "keys", "plan", "telemetry"]),
    ("sync", &["keys", "plan"]),
    ("cluster", &["api", "channel", "clock", "keys", "plan", "telemetry"]),
    ("engine", &["api", "channel", "keys", "plan", "postgres", "telemetry"]),
    (
        "control",
        &[
            "api",
            "channel",
            "clock",
            "cluster",
            "keys",
            "plan",
            "sync",
            "telemetry",
        ],
    ),
    (
        "vault",
        &["api", "channel", "clock", "cluster", "keys", "plan", "telemetry"],
    ),
    (
        "cli",
        &[
            "api",
            "channel::frames",
            "keys",
            "plan",
            "postgres::install",
            "postgres::preview",
            "vault::verify",
        ],
    ),
    (
        "reference",
        &[
            "api",
            "channel::hub",
            "engine::EngineMetrics",
            "telemetry",
            "vault::openapi",
        ],
    ),
];

/// What the code of a part never mentions: decisions have no clock, no client and no dice, and whoever speaks SQL does not
/// know Kubernetes.
const NEVER: &[(&str, &[&str])] = &[
    (
        "plan",
        &[
            "async ",
            ".await",
            "tokio",
            "kube::",
            "rand::",
            "Timestamp::now",
            "Instant::now",
            "SystemTime",
        ],
    ),
    (
        "api",
        &[
            "async ",
            ".await",
            "tokio",
            "rand::",
            "kube::Client",
            "Timestamp::now",
            "Instant::now",
            "SystemTime",
        ],
    ),
    ("keys", &["kube::", "k8s_openapi", "tokio_postgres"]),
    ("channel", &["kube::", "k8s_openapi", "tokio_postgres"]),
    ("postgres", &["kube::", "k8s_openapi"]),
    ("sync", &["kube::", "k8s_openapi", "tokio_postgres"]),
    ("engine", &["kube::", "k8s_openapi"]),
    ("cluster", &["tokio_postgres"]),
    ("control", &["tokio_postgres"]),
    ("vault", &["tokio_postgres"]),
];

/// Lines of code in a file, its tests aside.
const LONGEST: usize = 450;

/// Files that are longer, and how long at most: they may shrink and leave this list, not grow.
const LONGER: &[(&str, usize)] = &[];

/// Words for what is unfinished, names that say nothing, and places of one machine. In two halves, or this file would
/// name them.
const UNWANTED: &[(&str, &str)] = &[
    ("to", "do!("),
    ("unimple", "mented!("),
    ("FIX", "ME"),
    ("XX", "X:"),
    ("TO", "DO:"),
    ("HA", "CK"),
    ("#[ign", "ore]"),
    ("fn pro", "cess_"),
    ("fn han", "dle_"),
    ("mod ut", "il"),
    ("mod hel", "per"),
    ("mod man", "ager"),
    ("/wo", "rk/"),
    ("/t", "mp/"),
    ("/ho", "me/"),
    ("/ro", "ot/"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, but for what is built or belongs to git.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let rust = files(&root().join(folder)).into_iter();
    let rust = rust.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().display().to_string(), text)
    };
    rust.map(named).collect()
}

/// The part that a file of the library belongs to; none for `lib.rs` and the programs.
fn part(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let first = rest.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "bin"].contains(&name)).then_some(name)
}

/// The text without comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The text before its tests.
fn before_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

/// The paths that begin at the root of the library, such as `api::lease`, two names deep.
fn uses(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(branches(list).iter().map(|path| head(path))),
            None => found.extend([head(rest)]),
        }
    }
    found
}

/// The first two names of a path.
fn head(path: &str) -> String {
    let names = path.trim().split("::").map(|name| {
        let end = name
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        (&name[..end], end < name.len())
    });
    let mut head = Vec::new();
    for (name, ends) in names.take(2) {
        head.push(name);
        if ends {
            break;
        }
    }
    head.retain(|name| !name.is_empty());
    head.join("::")
}

/// The members of a `use` list, at its outermost level.
fn branches(list: &str) -> Vec<String> {
    let (mut depth, mut members) = (0, vec![String::new()]);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ => {}
        }
        if (c != ',' || depth > 0)
            && let Some(last) = members.last_mut()
        {
            last.push(c);
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

fn limit(file: &str) -> usize {
    let longer = LONGER.iter().find(|(name, _)| *name == file);
    longer.map_or(LONGEST, |(_, lines)| *lines)
}

fn is_allowed(part: &str, path: &str) -> bool {
    let lies_in = |place: &str| path == place || path.starts_with(&format!("{place}::"));
    let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == part).unwrap();
    lies_in(part) || allowed.iter().any(|place| lies_in(place))
}

#[test]
fn parts_use_only_what_lies_below_them() {
    let mut faults = Vec::new();
    for (file, text) in sources("src") {
        let Some(part) = part(&file) else { continue };
        if !MAY_USE.iter().any(|(name, _)| *name == part) {
            faults.push(format!(
                "{file}: part {part} has no place in the order; give it one in tests/layers.rs"
            ));
            continue;
        }
        let forbidden = uses(&text).into_iter().filter(|used| !is_allowed(part, used));
        faults.extend(forbidden.map(|used| format!("{file} uses {used}")));
        // `super` that climbs out of the part would get around the order.
        let depth = file.matches('/').count() + usize::from(!file.ends_with("/mod.rs"));
        let climbs = code(before_tests(&text)).contains(&"super::".repeat(depth.max(2)));
        if climbs {
            faults.push(format!("{file} climbs out of {part}; write crate::"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_order_has_no_circle() {
    for (at, (name, below)) in MAY_USE.iter().enumerate() {
        for used in *below {
            let part = used.split("::").next().unwrap();
            let place = MAY_USE.iter().position(|(name, _)| *name == part);
            assert!(
                place.is_some_and(|place| place < at),
                "{name} may use {used}, which comes after it"
            );
        }
    }
}

#[test]
fn decisions_are_pure_and_sql_knows_no_kubernetes() {
    let mut faults = Vec::new();
    for (file, text) in sources("src") {
        let never = NEVER.iter().filter(|(name, _)| part(&file) == Some(name));
        let code = code(before_tests(&text));
        for word in never.flat_map(|(_, words)| *words) {
            // The custom resources are made by kube's derive; that much of it is a language, not a client.
            if code.contains(word) {
                faults.push(format!("{file} mentions {word}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let all = ["src", "tests", "e2e"].into_iter().flat_map(sources);
    let long: Vec<String> = all
        .map(|(file, text)| (file, before_tests(&text).lines().count()))
        .filter(|(file, lines)| *lines > limit(file))
        .map(|(file, lines)| {
            format!(
                "{file} has {lines} lines of code, {} are enough; split it",
                limit(&file)
            )
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_and_nothing_names_one_machine() {
    let mut faults = Vec::new();
    for path in files(root()) {
        // What is no text holds no words.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let file = path.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in text.lines().enumerate() {
            // An address of the REST API, and nobody's folder.
            let line = line.replace(concat!("/v1/ho", "me/"), "");
            let word = UNWANTED.iter().map(|(one, two)| format!("{one}{two}"));
            let found = word.filter(|word| line.contains(word.as_str()));
            faults.extend(found.map(|word| format!("{file}:{}: {word}", number + 1)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn dependencies_come_from_the_public_registry_only() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    let others: BTreeSet<&str> = sources
        .filter(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"")
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let read = |text: &str| uses(text).into_iter().collect::<Vec<_>>();
    assert_eq!(read("use crate::api::lease::{Claim, Maker};"), ["api::lease"]);
    assert_eq!(
        read("use crate::{api::Engine, plan::{lease, backoff}, keys};"),
        ["api::Engine", "keys", "plan::"].map(|p| p.trim_end_matches("::"))
    );
    assert_eq!(
        read("let x: crate::cluster::Error = y; // crate::control::z"),
        ["cluster::Error"]
    );
    assert_eq!(read("pub(crate) fn f() {}"), Vec::<String>::new());
    assert!(is_allowed("plan", "api::lease") && is_allowed("plan", "plan::lease"));
    assert!(is_allowed("api", "channel::frames::Task") && !is_allowed("api", "channel::hub"));
    assert!(!is_allowed("plan", "cluster::Error") && !is_allowed("postgres", "engine"));
}
