//! One figure beside its limit, and the table of all of them as people and programs read it.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

/// How much wider a ratio's bar is where noise must not fail anything.
const WIDE: f64 = 4.0;

/// What a figure is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// Ours divided by the limit, at least.
    RatioAtLeast(f64),
    /// Ours divided by the limit, at most.
    RatioAtMost(f64),
    /// Ours alone, at most: a time, which others on the machine move.
    AtMost(f64),
    /// Ours alone, at most: a number of things or a size, which nobody moves.
    Counted(f64),
    /// Printed to be looked at.
    None,
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Of both values.
    pub unit: &'static str,
    /// The product's.
    pub ours: f64,
    /// What the parts below it can do at most, measured in the same run.
    pub limit: Option<f64>,
    /// What it is held to.
    pub bar: Bar,
    /// What the limit is, or what else is worth knowing.
    pub note: String,
}

impl Row {
    /// A figure without a limit and without a bar.
    pub fn new(figure: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self {
            figure: figure.into(),
            unit,
            ours,
            limit: None,
            bar: Bar::None,
            note: String::new(),
        }
    }

    #[must_use]
    pub fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    #[must_use]
    pub fn bar(mut self, bar: Bar) -> Self {
        self.bar = bar;
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// For a machine that is busy with other things, and for programs that were not built for speed: what is counted is held
    /// to its bar, a ratio to a bar that only a change of kind passes, and a time to none.
    #[must_use]
    pub fn widened(mut self) -> Self {
        self.bar = match self.bar {
            Bar::RatioAtLeast(bar) => Bar::RatioAtLeast(bar / WIDE),
            Bar::RatioAtMost(bar) => Bar::RatioAtMost(bar * WIDE),
            Bar::AtMost(_) => Bar::None,
            bar => bar,
        };
        self
    }

    /// Ours divided by the limit.
    pub fn ratio(&self) -> Option<f64> {
        self.limit.map(|limit| self.ours / limit)
    }

    /// Whether it reaches its bar; none where it has no bar. What could not be measured (NaN) does not reach any.
    pub fn met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        match self.bar {
            Bar::RatioAtLeast(bar) => Some(ratio >= bar),
            Bar::RatioAtMost(bar) => Some(ratio <= bar),
            Bar::AtMost(bar) | Bar::Counted(bar) => Some(self.ours <= bar),
            Bar::None => None,
        }
    }

    fn bar_text(&self) -> String {
        match self.bar {
            Bar::RatioAtLeast(bar) => format!(">= {bar} x"),
            Bar::RatioAtMost(bar) => format!("<= {bar} x"),
            Bar::AtMost(bar) | Bar::Counted(bar) => format!("<= {}", number(bar)),
            Bar::None => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.figure,
            "unit": self.unit,
            "ours": self.ours,
            "limit": self.limit,
            "ratio": self.ratio(),
            "bar": self.bar_text(),
            "met": self.met(),
            "note": self.note,
        })
    }
}

/// Three digits that count, as many as anybody believes.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 100.0 || size.fract() == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// For people.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FIGURE", "OURS", "LIMIT", "UNIT", "RATIO", "BAR", "", "NOTE"]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for row in rows {
        table.add_row([
            Cell::new(&row.figure),
            right(number(row.ours)),
            right(row.limit.map(number).unwrap_or_default()),
            Cell::new(row.unit),
            right(row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default()),
            Cell::new(row.bar_text()),
            Cell::new(row.verdict()),
            Cell::new(&row.note),
        ]);
    }
    table.trim_fmt()
}

/// For a page of the documentation.
pub fn markdown(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let (limit, ratio) = (row.limit.map(number), row.ratio().map(|ratio| format!("{ratio:.2}")));
        [
            row.figure.clone(),
            format!("{} {}", number(row.ours), row.unit),
            limit.map(|limit| format!("{limit} {}", row.unit)).unwrap_or_default(),
            ratio.unwrap_or_default(),
            row.bar_text(),
            row.verdict().to_owned(),
        ]
    };
    let head = ["figure", "ours", "limit", "ratio", "bar", ""].map(str::to_owned);
    let lines = std::iter::once(head)
        .chain([["---"; 6].map(str::to_owned)])
        .chain(rows.iter().map(line));
    lines
        .map(|cells| format!("| {} |", cells.join(" | ")))
        .collect::<Vec<_>>()
        .join("\n")
}

/// For programs.
pub fn json(rows: &[Row], about: &Value) -> Value {
    json!({"about": about, "figures": rows.iter().map(Row::json).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_or_missed_and_what_was_not_measured_misses_it() {
        let row = Row::new("issue", "accounts/s", 78.0).limit(100.0);
        assert_eq!(row.clone().bar(Bar::RatioAtLeast(0.78)).met(), Some(true));
        assert_eq!(row.clone().bar(Bar::RatioAtLeast(0.79)).met(), Some(false));
        assert_eq!(row.clone().bar(Bar::RatioAtMost(0.5)).met(), Some(false));
        assert_eq!(row.clone().bar(Bar::AtMost(80.0)).met(), Some(true));
        assert_eq!(row.met(), None);
        let nothing = Row::new("issue", "accounts/s", f64::NAN).limit(100.0);
        assert_eq!(nothing.clone().bar(Bar::RatioAtLeast(0.1)).met(), Some(false));
        assert_eq!(nothing.bar(Bar::AtMost(9.0)).met(), Some(false));
        let alone = Row::new("issue", "accounts/s", 9.0).bar(Bar::RatioAtMost(1.0));
        assert_eq!(alone.met(), Some(false), "a ratio needs a limit");
    }

    #[test]
    fn noise_moves_no_widened_bar_but_a_count_still_counts() {
        let row = |bar| Row::new("it", "ms", 5.0).limit(1.0).bar(bar).widened();
        assert_eq!(row(Bar::AtMost(1.0)).met(), None);
        assert_eq!(row(Bar::RatioAtMost(1.5)).met(), Some(true));
        assert_eq!(row(Bar::RatioAtMost(1.2)).met(), Some(false));
        assert_eq!(row(Bar::Counted(4.0)).met(), Some(false));
    }

    #[test]
    fn the_table_shows_ratio_bar_and_verdict() {
        let rows = [
            Row::new("one", "ms", 12.345)
                .limit(10.0)
                .bar(Bar::RatioAtMost(1.5))
                .note("why"),
            Row::new("two", "requests", 8.0),
        ];
        let text = table(&rows);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            ["one", "12.3", "10", "ms", "1.23", "<=", "1.5", "x", "met", "why"]
        );
        assert_eq!(lines[2], ["two", "8", "requests"]);
        assert_eq!(json(&rows, &json!({}))["figures"][0]["met"], true);
        let page = markdown(&rows);
        assert_eq!(
            page.lines().nth(2),
            Some("| one | 12.3 ms | 10 ms | 1.23 | <= 1.5 x | met |")
        );
    }
}
