//! The values of the chart, read from the comments beside them: the README's table, and the list that the schema must have.

use std::fmt::Write;

/// One value that a user can set.
#[derive(Debug, PartialEq, Eq)]
pub struct Value {
    /// Such as `image.tag`.
    pub path: String,
    pub default: String,
    pub meaning: String,
}

/// All documented values of a `values.yaml`: a comment that begins with `# --`, and the key below it.
pub fn read(text: &str) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut meaning: Option<String> = None;
    // The indent of the value whose default goes on below its key.
    let mut open: Option<usize> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim();
        if let Some(comment) = words.strip_prefix('#') {
            match (comment.trim_start().strip_prefix("-- "), &mut meaning) {
                (Some(first), _) => meaning = Some(first.to_owned()),
                (None, Some(meaning)) => {
                    meaning.push(' ');
                    meaning.push_str(comment.trim());
                }
                (None, None) => {}
            }
            continue;
        }
        if let (Some(of), Some(value)) = (open, values.last_mut())
            && indent > of
        {
            let gap = if value.default.is_empty() { "" } else { ", " };
            value.default = format!("{}{gap}{words}", value.default);
            continue;
        }
        open = None;
        let Some((key, default)) = words.split_once(':') else {
            continue;
        };
        path.retain(|(of, _)| *of < indent);
        path.push((indent, key.to_owned()));
        let Some(meaning) = meaning.take() else { continue };
        let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
        values.push(Value {
            path: names.join("."),
            default: default.trim().to_owned(),
            meaning,
        });
        open = Some(indent);
    }
    values
}

/// As rows of a table.
pub fn table(values: &[Value]) -> String {
    let mut text = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Value { path, default, meaning } in values {
        let _ = writeln!(text, "| `{path}` | `{default}` | {meaning} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_keys_and_long_defaults_are_read() {
        let text = "# Words before.\n# -- One.\none: 1\n\ngroup:\n  # -- Two, in\n  # two lines.\n  two: {}\n  # -- Three.\n  three:\n    a: b\n    c: [d]\n# -- Four.\nfour: \"\"\n";
        let found: Vec<_> = read(text)
            .into_iter()
            .map(|value| (value.path, value.default, value.meaning))
            .collect();
        let wanted = [
            ("one", "1", "One."),
            ("group.two", "{}", "Two, in two lines."),
            ("group.three", "a: b, c: [d]", "Three."),
            ("four", "\"\"", "Four."),
        ];
        let wanted: Vec<_> = wanted
            .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
            .into();
        assert_eq!(found, wanted);
    }
}
