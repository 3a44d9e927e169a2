//! What to look at when a scenario fails: objects, events, who wrote which field, and the ends of the logs.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::places;
use crate::process::tail;

/// Lines of each log that are shown.
const LOG_LINES: usize = 40;
/// Lines of objects that are shown; the file has them all.
const OBJECT_LINES: usize = 250;

/// The findings as text for the error message. The whole of it is kept in a file outside the run folder.
pub fn report(cluster: &Cluster, title: &str, logs: &[(String, String)]) -> String {
    let kinds = kinds(cluster);
    let ask = |args: &[&str]| cluster.kubectl(args).unwrap_or_else(|error| format!("{error:#}"));
    let (mut table, mut objects) = (String::new(), String::new());
    if !kinds.is_empty() {
        table = ask(&["get", &kinds, "-A", "-o", "wide"]);
        objects = ask(&["get", &kinds, "-A", "-o", "yaml", "--show-managed-fields"]);
    }
    let events = ask(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]);
    let mut ends = String::new();
    for (name, log) in logs {
        let _ = writeln!(ends, "--- the end of the log of {name} ---\n{}", tail(log, LOG_LINES));
    }
    let whole = format!("--- objects ---\n{table}\n{objects}\n--- events ---\n{events}\n{ends}");
    let kept = match keep(title, &whole) {
        Ok(path) => format!("all of it is kept in {}", path.display()),
        Err(error) => format!("it could not be kept in a file: {error:#}"),
    };
    let shown = objects.lines().take(OBJECT_LINES).collect::<Vec<_>>().join("\n");
    format!(
        "--- objects ({kept}) ---\n{table}\n{shown}\n--- events ---\n{}\n{ends}",
        tail(&events, LOG_LINES)
    )
}

/// All kinds of ours that this cluster knows, separated by commas.
fn kinds(cluster: &Cluster) -> String {
    let names = cluster
        .kubectl(&["api-resources", "--api-group=dsv.dev", "-o", "name"])
        .unwrap_or_default();
    names
        .lines()
        .filter(|name| !name.is_empty())
        .collect::<Vec<_>>()
        .join(",")
}

fn keep(title: &str, text: &str) -> Result<PathBuf> {
    let dir = places::target_dir()?.join("e2e-failures");
    fs::create_dir_all(&dir)?;
    let name: String = title
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(80)
        .collect();
    let path = dir.join(format!("{name}-{}.txt", std::process::id()));
    fs::write(&path, text)?;
    Ok(path)
}
