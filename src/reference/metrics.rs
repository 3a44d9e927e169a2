//! The page on metrics, read from what the programs expose themselves.

use super::{Error, cell};
use crate::channel::hub::HubMetrics;
use crate::engine::EngineMetrics;
use crate::telemetry::metrics;
use std::fmt::Write;

const OPENING: &str = "\
# Metrics

Served as `/metrics`, in the text format of OpenMetrics. The [chart](../charts/dsv-operator/README.md) brings a PodMonitor,
alerts and a dashboard that read them; the [runbook](runbook.md#alerts) has an entry for each alert. Of a histogram there are
`_bucket`, `_sum` and `_count`.
";

/// One metric as it is queried.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: String,
    meaning: String,
    /// Labels with the values that they can have.
    labels: Vec<(String, Vec<String>)>,
}

/// As Markdown.
pub fn page() -> Result<String, Error> {
    let mut registry = metrics::registry();
    metrics::Metrics::new(&mut registry).show_all();
    HubMetrics::default().register(&mut registry);
    let mut page = OPENING.to_owned();
    section(&mut page, "The operator", &read(&metrics::text(&registry)?));
    section(&mut page, "An engine", &read(&EngineMetrics::every()?));
    Ok(page)
}

fn section(page: &mut String, title: &str, metrics: &[Metric]) {
    let _ = write!(
        page,
        "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
    );
    for metric in metrics {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|(name, values)| match values.as_slice() {
                // Which build runs is nobody's business here.
                [] => format!("`{name}`"),
                values => format!("`{name}`: {}", values.join(", ")),
            })
            .collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind,
            labels.join("; "),
            cell(&metric.meaning)
        );
    }
}

/// All metrics of an OpenMetrics text.
fn read(text: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some((family, meaning)) = comment(line, "# HELP ") {
            let meaning = meaning.trim_end_matches('.').to_owned();
            metrics.push(Metric {
                name: family.to_owned(),
                meaning,
                ..Metric::default()
            });
        } else if let (Some((_, kind)), Some(last)) = (comment(line, "# TYPE "), metrics.last_mut()) {
            kind.clone_into(&mut last.kind);
            match kind {
                "counter" => last.name.push_str("_total"),
                "info" => last.name.push_str("_info"),
                _ => {}
            }
        } else if let (Some(labels), Some(last)) = (labels(line), metrics.last_mut()) {
            for (name, value) in labels {
                note(last, name, value);
            }
        }
    }
    metrics
}

fn comment<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(mark)?.split_once(' ')
}

/// What stands in the braces of a sample. No value of ours has a comma or a quote in it.
fn labels(line: &str) -> Option<Vec<(&str, &str)>> {
    let (_, rest) = line.split_once('{')?;
    let (inside, _) = rest.split_once('}')?;
    Some(
        inside
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect(),
    )
}

fn note(metric: &mut Metric, name: &str, value: &str) {
    // The bounds of a histogram say nothing about what is counted.
    if name == "le" {
        return;
    }
    if !metric.labels.iter().any(|(known, _)| known == name) {
        metric.labels.push((name.to_owned(), Vec::new()));
    }
    let Some((_, values)) = metric.labels.iter_mut().find(|(known, _)| known == name) else {
        return;
    };
    // Another build has another commit, and the page would change with each.
    if metric.kind != "info" && !values.iter().any(|known| known == value) {
        values.push(value.to_owned());
        // A family has no order of its own.
        values.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_queries_and_labels_have_their_values() {
        let text = "# HELP dsv_tasks Tasks.\n# TYPE dsv_tasks counter\ndsv_tasks_total{kind=\"echo\",outcome=\"done\"} 0\n\
                    dsv_tasks_total{kind=\"echo\",outcome=\"failed\"} 0\n# HELP dsv_build Which.\n# TYPE dsv_build info\n\
                    dsv_build_info{commit=\"abc\"} 1\n# HELP dsv_t Time.\n# TYPE dsv_t histogram\ndsv_t_bucket{le=\"1\"} 0\n";
        let metric = |name: &str, kind: &str, meaning: &str, labels: &[(&str, &[&str])]| Metric {
            name: name.into(),
            kind: kind.into(),
            meaning: meaning.into(),
            labels: labels
                .iter()
                .map(|(name, values)| ((*name).into(), values.iter().map(|v| (*v).into()).collect()))
                .collect(),
        };
        let wanted = [
            metric(
                "dsv_tasks_total",
                "counter",
                "Tasks",
                &[("kind", &["echo"]), ("outcome", &["done", "failed"])],
            ),
            metric("dsv_build_info", "info", "Which", &[("commit", &[])]),
            metric("dsv_t", "histogram", "Time", &[]),
        ];
        assert_eq!(read(text), wanted);
    }

    #[test]
    fn the_page_has_metrics_of_both_programs_with_their_labels() {
        let page = page().unwrap();
        for part in [
            "| `dsv_leader` | gauge |  |",
            "| `dsv_definition_missing` | gauge | `kind`: credential_lease, dsv_tenant, dynamic_secret, engine, engine_pool, secret_sync |",
            ", not_sent, ",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        let (_, engine) = page.split_once("## An engine").unwrap();
        assert!(
            engine.contains("`dsv_engine_tasks_total`") && !engine.contains("not_sent"),
            "{engine}"
        );
    }
}
