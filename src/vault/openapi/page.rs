//! The page for browsers: written here, whole, from the same table. It needs no script, and nothing from anywhere else.

use super::operations::{ALL, Operation};
use super::shapes::{Field, Kind, SHAPES, Shape};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use std::fmt::Write;

/// Its looks.
pub const CSS: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; background: #fff; }
code, summary { font-family: ui-monospace, monospace; }
details { border: 1px solid #ccc; border-radius: 4px; margin: .4rem 0; padding: .3rem .7rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; }
summary span { font-family: system-ui, sans-serif; color: #555; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid #ddd; padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616; }
  summary span { color: #aaa; }
  a { color: #8ab4f8; }
  details, td, th { border-color: #444; }
}
";

/// What a browser may load for it: its own looks and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page or one of its parts, with the headers that keep it to itself.
pub fn served(kind: &'static str, text: String) -> Response {
    let mut response = text.into_response();
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let add = |(name, value): (HeaderName, &'static str)| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    headers.into_iter().for_each(add);
    response
}

/// The page.
pub fn html() -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>API of dsv-operator</title>\n\
         <link rel=\"stylesheet\" href=\"docs.css\">\n<h1>API of dsv-operator</h1>\n\
         <p>The dialect of DevOps Secrets Vault, and Secret Server's calls that push secrets to tenants. \
         The same as <a href=\"openapi.json\">an OpenAPI document</a>. All calls but logins need the header \
         <code>Authorization</code> with an access token.</p>\n",
    );
    let mut tags: Vec<&str> = Vec::new();
    for operation in ALL {
        if !tags.contains(&operation.tag()) {
            tags.push(operation.tag());
        }
    }
    for tag in tags {
        heading(&mut page, tag);
        for operation in ALL.iter().filter(|operation| operation.tag() == tag) {
            row(&mut page, operation);
        }
    }
    heading(&mut page, "bodies");
    for shape in SHAPES {
        body(&mut page, shape);
    }
    page.push_str("</html>\n");
    page
}

fn heading(page: &mut String, text: &str) {
    let _ = writeln!(page, "<h2>{}</h2>", escaped(text));
}

fn row(page: &mut String, operation: &Operation) {
    let _ = writeln!(
        page,
        "<details id=\"{}\"><summary><b>{}</b> {} <span>{}</span></summary>",
        operation.id(),
        operation.method,
        escaped(operation.path),
        escaped(operation.says)
    );
    if let Some(name) = operation.body {
        let _ = writeln!(page, "<p>Body: {}</p>", link(name));
    }
    for (code, shape) in operation.replies {
        let shape = shape.map(link).unwrap_or_default();
        let _ = writeln!(page, "<p>{code} {shape}</p>");
    }
    if !operation.query.is_empty() {
        page.push_str("<table><tr><th>Query<th>Meaning</tr>\n");
        for query in operation.query {
            let _ = writeln!(
                page,
                "<tr><td><code>{}</code><td>{}</tr>",
                escaped(query.name),
                escaped(query.says)
            );
        }
        page.push_str("</table>\n");
    }
    page.push_str("</details>\n");
}

fn body(page: &mut String, shape: &Shape) {
    let _ = writeln!(
        page,
        "<details id=\"body-{}\"><summary>{} <span>{}</span></summary><table>",
        shape.name,
        shape.name,
        escaped(shape.says)
    );
    for field in shape.fields {
        let need = if field.required { "" } else { "if any" };
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{need}<td>{}</tr>",
            escaped(field.name),
            kind(field),
            escaped(field.says)
        );
    }
    page.push_str("</table></details>\n");
}

fn kind(field: &Field) -> String {
    match field.kind {
        Kind::Text | Kind::Secret => "text".into(),
        Kind::Time => "time".into(),
        Kind::Number => "number".into(),
        Kind::Flag => "true or false".into(),
        Kind::Texts => "list of texts".into(),
        Kind::Numbers => "list of numbers".into(),
        Kind::Object => "object".into(),
        Kind::Any => "any".into(),
        Kind::Of(name) => link(name),
        Kind::List(name) => format!("list of {}", link(name)),
    }
}

fn link(name: &str) -> String {
    format!("<a href=\"#body-{name}\">{name}</a>")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_and_body_is_on_the_page_and_nothing_is_loaded_from_elsewhere() {
        let page = html();
        for operation in ALL {
            assert!(
                page.contains(&format!("id=\"{}\"", operation.id())),
                "{}",
                operation.path
            );
        }
        for shape in SHAPES {
            assert!(page.contains(&format!("id=\"body-{}\"", shape.name)), "{}", shape.name);
        }
        assert!(page.contains("users:&lt;.*&gt;"), "text is no markup");
        for foreign in ["<script", "style=", "://", "onclick"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
