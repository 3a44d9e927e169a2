//! The pages that are generated from the code: fields of the custom resources, metrics, and the OpenAPI document. Words come from
//! where a thing is defined; only their arrangement is decided here.

mod fields;
mod metrics;

use crate::vault::openapi;

/// A page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition cannot be read as JSON.
    #[error("a custom resource definition could not be read; its type is at fault")]
    Definition(#[from] serde_json::Error),
    /// The metrics cannot be written as text.
    #[error("the metrics could not be encoded; one of them is at fault")]
    Metrics(#[from] std::fmt::Error),
}

/// File names and texts.
pub fn pages() -> Result<Vec<(String, String)>, Error> {
    Ok(vec![
        ("fields.md".to_owned(), fields::page()?),
        ("metrics.md".to_owned(), metrics::page()?),
        ("openapi.json".to_owned(), openapi::text()),
    ])
}

/// Text in a cell of a table: one line, no bar that would end the cell, and nothing outside of code that reads as a tag.
fn cell(text: &str) -> String {
    let line = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|");
    let parts = line.split('`').enumerate().map(|(number, part)| match number % 2 {
        0 => part.replace('<', "\\<"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}
