//! Putting results on the terminal: tables, times, and a pipe that may be closed.

use super::{Error, Output};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// A table without lines, as kubectl's: the first column at the left edge, three spaces between columns.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}

/// Writes text and an end of line to standard output. Whoever closes the pipe has read enough.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Write(error)),
        _ => Ok(()),
    }
}

/// Writes a remark to standard error, where it does not get into a pipe.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Write(error.into()))?;
    print(&text)
}

/// Writes a value as YAML.
pub fn print_yaml(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_saphyr::to_string(value).map_err(|error| Error::Write(std::io::Error::other(error)))?;
    print(text.trim_end())
}

/// Writes a value for programs, in the form that was asked for.
pub fn print_value(output: Output, value: &impl Serialize) -> Result<(), Error> {
    match output {
        Output::Yaml => print_yaml(value),
        Output::Table | Output::Json => print_json(value),
    }
}

/// How far away a time is, with its two largest units: `3m20s`, `1h5m`, `2d3h`.
pub fn distance(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().abs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3600 => ((60, "m"), (1, "s")),
        3600..86_400 => ((3600, "h"), (60, "m")),
        _ => ((86_400, "d"), (3600, "h")),
    };
    let (first, second) = (seconds / large.0, seconds % large.0 / small.0);
    if second == 0 {
        format!("{first}{}", large.1)
    } else {
        format!("{first}{}{second}{}", large.1, small.1)
    }
}

/// A time as seen from now: `3m20s` ahead, or `3m20s ago`.
pub fn from_now(now: Timestamp, at: Timestamp) -> String {
    if at > now {
        distance(now, at)
    } else {
        format!("{} ago", distance(at, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_at_most_two_units() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (200, "3m20s"),
            (3600, "1h"),
            (3900, "1h5m"),
            (183_600, "2d3h"),
        ] {
            assert_eq!(distance(at(0), at(seconds)), text);
        }
        assert_eq!(from_now(at(0), at(61)), "1m1s");
        assert_eq!(from_now(at(61), at(0)), "1m1s ago");
    }

    #[test]
    fn a_table_starts_at_the_left_edge() {
        let text = table(["NAME", "READY"], vec![["orders-app".into(), "True".into()]]);
        assert_eq!(text, "NAME         READY\norders-app   True");
    }
}
