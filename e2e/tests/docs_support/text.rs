//! Reading pages: blocks, links, headings, tables. As much of Markdown as these pages use.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use e2e::places;

/// A page by its path in the workspace.
pub fn page(name: &str) -> String {
    fs::read_to_string(places::workspace().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every page, with its path in the workspace.
pub fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned()];
    for entry in fs::read_dir(places::workspace().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    assert!(names.len() > 5, "pages are missing: {names:?}");
    names.into_iter().map(|name| (name.clone(), page(&name))).collect()
}

/// The block after the mark `<!-- test: name -->`.
pub fn block(page: &str, name: &str) -> Result<String> {
    let mark = format!("<!-- test: {name} -->\n```");
    let (_, rest) = page
        .split_once(&mark)
        .with_context(|| format!("no block is marked {name}"))?;
    let (block, _) = rest
        .split_once("\n```")
        .with_context(|| format!("the block {name} has no end"))?;
    let (_language, block) = block.split_once('\n').context("the block is empty")?;
    Ok(block.to_owned())
}

/// The targets of all links outside of code.
pub fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in outside_code(page) {
        let parts = line.split("](").skip(1);
        links.extend(parts.filter_map(|part| Some(part.split_once(')')?.0.to_owned())));
    }
    links
}

fn outside_code(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What headings are called in links.
pub fn anchors(page: &str) -> BTreeSet<String> {
    let headings = outside_code(page).filter_map(|line| line.strip_prefix('#'));
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

/// The first word in backticks of each table row, of those that begin like this.
pub fn table_words(page: &str, prefix: &str) -> BTreeSet<String> {
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells
        .filter(|word| word.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

/// Flags, and variables of ours.
pub fn command_words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    let ours = |word: &&str| {
        let flag = word
            .strip_prefix("--")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        flag || word.starts_with("DSV_") || ["POD_NAME", "POD_NAMESPACE", "ENGINE_NAME"].contains(word)
    };
    words.filter(ours).map(str::to_owned).collect()
}

/// The names of metrics as they are queried, from the text that a program serves.
pub fn metric_names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |line: &str| {
        let (name, kind) = line.split_once(' ')?;
        Some(match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
    };
    types.filter_map(name).collect()
}
