//! Alerts and dashboard of the chart: they name metrics and label values that the code exports, and each alert does what it
//! says. The latter needs promtool, which not every machine has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::process::Command;

use e2e::places;
use e2e::run_dir::RunDir;
use e2e::say::say;
use serde_json::Value;

use super::text::{anchors, page, table_words};

const ALERTS: &str = "charts/dsv-operator/files/alerts.yaml";
const CASES: &str = "charts/dsv-operator/ci/alerts-test.yaml";
const DASHBOARD: &str = "charts/dsv-operator/files/dashboard.json";

/// All queries of the dashboard, as Prometheus gets them.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&page(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &Value| {
        let query = target["expr"].as_str().unwrap();
        query
            .replace("$__rate_interval", "5m")
            .replace("$__range", "6h")
            .replace("$namespace", ".*")
    };
    targets.map(query).collect()
}

/// The names of our metrics in a text, as the reference has them.
fn named(text: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("dsv_"));
    let family = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut stems = parts.filter_map(|part| word.strip_suffix(part));
        let stem = stems.find(|stem| known.contains(*stem));
        stem.unwrap_or(word).to_owned()
    };
    ours.map(family).collect()
}

/// The values of a label that the reference lists, over all metrics.
fn label_values() -> BTreeMap<String, BTreeSet<String>> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let reference = page("docs/metrics.md");
    for line in reference.lines().filter(|line| line.starts_with("| `dsv_")) {
        let labels = line.split(" | ").nth(2).unwrap();
        for label in labels.split("; ") {
            if let Some((name, words)) = label.split_once(": ") {
                let words = words.split(", ").map(str::to_owned);
                values
                    .entry(name.trim_matches('`').to_owned())
                    .or_default()
                    .extend(words);
            }
        }
    }
    values
}

#[test]
fn alerts_and_dashboard_name_only_what_is_exported_and_the_dashboard_leaves_nothing_out() {
    let known = table_words(&page("docs/metrics.md"), "dsv_");
    let alerts = named(&page(ALERTS), &known);
    let shown = named(&dashboard_queries().join("\n"), &known);
    assert!(alerts.len() > 10 && shown.len() > 10, "{alerts:?} {shown:?}");
    let unknown: Vec<_> = alerts.union(&shown).filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "nobody exports {unknown:?}");
    let left_out: Vec<_> = known
        .difference(&shown)
        // The one is an alert's affair, the other is the engines' view of what the operator counts.
        .filter(|name| !["dsv_definition_missing", "dsv_engine_tasks_total"].contains(&name.as_str()))
        .collect();
    assert!(left_out.is_empty(), "the dashboard does not show {left_out:?}");
}

#[test]
fn alerts_ask_for_label_values_that_exist() {
    let values = label_values();
    let mut asked = 0;
    for line in page(ALERTS).lines() {
        for (name, known) in &values {
            for rest in line.split(name.as_str()).skip(1) {
                let Some(rest) = ["=~\"", "=\"", "!=\""].iter().find_map(|sign| rest.strip_prefix(sign)) else {
                    continue;
                };
                for value in rest.split('"').next().unwrap().split('|') {
                    asked += 1;
                    assert!(known.contains(value), "no metric has {name}={value:?}: {line}");
                }
            }
        }
    }
    assert!(asked > 8, "only {asked} label values were found in {ALERTS}");
}

fn alert_names() -> Vec<String> {
    let alerts = page(ALERTS);
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_is_shown_to_fire() {
    let (alerts, cases, runbook) = (page(ALERTS), page(CASES), page("docs/runbook.md"));
    let entries = anchors(&runbook);
    let names = alert_names();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        let anchor = name.to_lowercase();
        assert!(entries.contains(&anchor), "docs/runbook.md has no heading for {name}");
        assert!(
            alerts.contains(&format!("runbook: docs/runbook.md#{anchor}\n")),
            "{name} does not name its entry"
        );
        let (_, entry) = runbook.split_once(&format!("### {name}\n")).unwrap();
        let entry = entry.split("\n#").next().unwrap();
        for part in ["**Means:**", "**Look:**", "**Fix:**"] {
            assert!(entry.contains(part), "the entry of {name} has no {part}\n{entry}");
        }
        let fires = format!("alertname: {name}\n        exp_alerts:\n");
        let silent = format!("alertname: {name}, exp_alerts: []");
        assert!(cases.contains(&fires), "{CASES} does not show that {name} fires");
        assert!(cases.contains(&silent), "{CASES} does not show that {name} is silent");
    }
    for entry in runbook.lines().filter_map(|line| line.strip_prefix("### Dsv")) {
        assert!(
            names.contains(&format!("Dsv{entry}")),
            "docs/runbook.md has an entry for Dsv{entry}, which is no alert"
        );
    }
}

/// The rules as Prometheus itself judges them.
#[test]
fn the_alerts_fire_when_they_should() {
    if Command::new("promtool").arg("--version").output().is_err() {
        say(
            "NOT RUN: there is no promtool on the PATH, so the alerts' unit tests were not run; \
             Debian's package prometheus brings it",
        );
        return;
    }
    let mut queries = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in dashboard_queries().iter().enumerate() {
        let _ = writeln!(
            queries,
            "      - {{record: query{number}, expr: {}}}",
            serde_json::to_string(query).unwrap()
        );
    }
    let file = RunDir::of_this_process()
        .unwrap()
        .subfolder("dashboard")
        .unwrap()
        .join("queries.yaml");
    fs::write(&file, queries).unwrap();
    for arguments in [
        &["check", "rules", ALERTS][..],
        &["test", "rules", CASES],
        &["check", "rules", file.to_str().unwrap()],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(places::workspace())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    }
}
