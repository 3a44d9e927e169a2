//! What the API serves, as a table: it lets calls in, and the OpenAPI document and the page for browsers are written from it.
//!
//! A call that is in no row is not answered, so nothing is served that the document does not have.

mod operations;
mod page;
mod shapes;

use super::path::{Suffix, split};
use axum::Router;
use axum::routing::get;
use http::Method;
use operations::{ALL, Operation};
use serde_json::{Map, Value, json};
use shapes::{Field, Kind, Query, SHAPES, Shape};

/// Version of the OpenAPI specification.
const SPECIFICATION: &str = "3.1.0";
/// Where calls of Secret Server lie.
const SECRET_SERVER: &str = "/api/v1/";

/// The document, and the page for browsers. They say nothing of the installation, and need no token.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = || async { page::served("application/json", text()) };
    let shown = || async { page::served("text/html; charset=utf-8", page::html()) };
    let looks = || async { page::served("text/css", page::CSS.to_owned()) };
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(shown))
        .route("/docs.css", get(looks))
}

/// Whether there are calls of an area.
pub fn knows(area: &str) -> bool {
    ALL.iter()
        .any(|operation| operation.parts().0.split('/').next() == Some(area))
}

/// Whether a call has a row. `path` is as calls have it: area first, without slashes around it.
pub fn serves(method: &Method, path: &str, has_body: bool) -> bool {
    let (area, rest) = path.split_once('/').unwrap_or((path, ""));
    let has_suffix = ["secrets", "home", "users", "roles", "clients", "groups", "config"].contains(&area);
    let (rest, suffix) = if has_suffix {
        split(rest, method, has_body)
    } else {
        (rest, Suffix::None)
    };
    ALL.iter().any(|operation| {
        let (template, wanted) = operation.parts();
        operation.method == method.as_str() && same(wanted, &suffix) && fits(&template, area, rest)
    })
}

fn same(wanted: &str, suffix: &Suffix) -> bool {
    let word = match suffix {
        Suffix::None => "",
        Suffix::Description => "::description",
        Suffix::ListPaths => "::listpaths",
        Suffix::Version(_) => "/version/",
        Suffix::Rollback(_) => "/rollback/",
        Suffix::Restore => "/restore",
    };
    wanted == word
}

/// `{path}` stands for the rest, `{prefix}` for the rest or nothing, all others for one segment.
fn fits(template: &str, area: &str, rest: &str) -> bool {
    let mut given = std::iter::once(area)
        .chain(rest.split('/'))
        .filter(|segment| !segment.is_empty());
    for segment in template.split('/').filter(|segment| !segment.is_empty()) {
        match (segment, given.next()) {
            ("{prefix}", _) | ("{path}", Some(_)) => return true,
            (_, Some(_)) if segment.starts_with('{') => {}
            (_, Some(found)) if found == segment => {}
            _ => return false,
        }
    }
    given.next().is_none()
}

/// The OpenAPI document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in ALL {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_lowercase(), described(operation));
        }
    }
    let schemas: Map<String, Value> = SHAPES
        .iter()
        .map(|shape| (shape.name.to_owned(), schema(shape)))
        .collect();
    json!({
        "openapi": SPECIFICATION,
        "info": {
            "title": "dsv-operator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The REST API in the dialect of DevOps Secrets Vault, and Secret Server's calls that push secrets to tenants. Keys of bodies have no case at the outermost level. Secret paths are written with : or / between their parts.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of POST /v1/token, behind Bearer or bare",
                },
            },
        },
        "security": [{"token": []}],
    })
}

/// The document as it is served and committed.
pub fn text() -> String {
    let text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    format!("{text}\n")
}

fn described(operation: &Operation) -> Value {
    let names = operation.path.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split('}').next());
    let in_path = names.map(|name| {
        let schema = json!({"type": "string"});
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = operation.query.iter().map(Query::described);
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let mut replies: Map<String, Value> = operation
        .replies
        .iter()
        .map(|(code, shape)| (code.to_string(), reply(*code, *shape)))
        .collect();
    let error = if operation.path.starts_with(SECRET_SERVER) {
        "ApiError"
    } else {
        "Error"
    };
    replies.insert("default".to_owned(), reply(0, Some(error)));
    let mut all = Map::new();
    all.insert("operationId".to_owned(), json!(operation.id()));
    all.insert("tags".to_owned(), json!([operation.tag()]));
    all.insert("summary".to_owned(), json!(operation.says));
    all.insert("parameters".to_owned(), json!(parameters));
    all.insert("responses".to_owned(), replies.into());
    if let Some(body) = operation.body {
        let form = json!({"schema": {"$ref": reference(body)}});
        let kinds: &[&str] = if operation.is_login() {
            &["application/json", "application/x-www-form-urlencoded"]
        } else {
            &["application/json"]
        };
        let content: Map<String, Value> = kinds.iter().map(|kind| ((*kind).to_owned(), form.clone())).collect();
        all.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    if operation.is_open() {
        all.insert("security".to_owned(), json!([]));
    }
    all.into()
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn reply(code: u16, shape: Option<&str>) -> Value {
    let says = match code {
        0 => "What went wrong, with the next step",
        201 => "Created",
        204 => "Done; there is no body",
        _ => "Done",
    };
    match shape {
        None => json!({"description": says}),
        Some(name) => {
            let schema = json!({"$ref": reference(name)});
            json!({"description": says, "content": {"application/json": {"schema": schema}}})
        }
    }
}

fn schema(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape
        .fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    let required: Vec<&str> = shape
        .fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    json!({"type": "object", "description": shape.says, "properties": properties, "required": required})
}

fn property(field: &Field) -> Value {
    let mut all = match field.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Secret => json!({"type": "string", "format": "password"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::Number => json!({"type": "integer"}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Numbers => json!({"type": "array", "items": {"type": "integer"}}),
        Kind::Object => json!({"type": ["object", "null"]}),
        Kind::Any => json!({"type": ["object", "array", "string", "number", "boolean", "null"]}),
        Kind::Of(name) => json!({"allOf": [{"$ref": reference(name)}]}),
        Kind::List(name) => json!({"type": "array", "items": {"$ref": reference(name)}}),
    };
    if let Some(all) = all.as_object_mut().filter(|_| !field.says.is_empty()) {
        all.insert("description".to_owned(), json!(field.says));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use utoipa::openapi::path::PathItem;
    use utoipa::openapi::security::SecurityScheme;
    use utoipa::openapi::{OpenApi, RefOr, Schema};

    fn serves_call(call: &str) -> bool {
        let (method, path) = call.split_once(' ').unwrap();
        serves(&method.parse().unwrap(), path, false)
    }

    #[test]
    fn calls_are_let_in_by_their_row_and_no_other_is() {
        for call in [
            "GET secrets",
            "GET secrets/a/b",
            "GET secrets/a:b::description",
            "GET secrets/::listpaths",
            "GET secrets/a/version/3",
            "PUT secrets/a/restore",
            "PUT secrets/a:b/rollback/0",
            "DELETE home/users:x/a",
            "POST engines/e/ping",
            "POST users/u/password",
            "DELETE groups/g/members",
            "PUT config/policies/secrets:a:b/restore",
            "POST oauth2/token",
            "POST token",
            "GET api/devops-secrets-vault/sync/status/3",
            "GET api/devops-secrets-vault/tenant/stub",
        ] {
            assert!(serves_call(call), "{call}");
        }
        for call in [
            "GET nothing",
            "PATCH secrets/a",
            "GET pools/a/b",
            "GET engines/e/ping",
            "DELETE pools",
            "GET config/policiesX",
            "PUT config",
            "POST audit",
            "GET users/u/version/x/y",
            "PUT pools/p",
            "DELETE api/devops-secrets-vault/tenant/1",
            "GET oauth2/token",
        ] {
            assert!(!serves_call(call), "{call}");
        }
    }

    #[test]
    fn the_document_is_one_and_all_that_it_names_is_in_it() {
        let document = document();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let read = serde_json::from_value::<RefOr<Schema>>(schema.clone());
            assert!(read.is_ok(), "{name} is no schema: {schema}");
            for (field, schema) in schema["properties"].as_object().unwrap() {
                let read = serde_json::from_value::<RefOr<Schema>>(schema.clone());
                assert!(read.is_ok(), "{name}.{field} is no schema: {schema}");
            }
        }
        for (name, scheme) in document["components"]["securitySchemes"].as_object().unwrap() {
            let read = serde_json::from_value::<SecurityScheme>(scheme.clone());
            assert!(read.is_ok(), "{name}: {:?}", read.err());
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            let read = serde_json::from_value::<PathItem>(item.clone());
            assert!(read.is_ok(), "{path}: {:?}", read.err());
        }
        let read: OpenApi = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(read.paths.paths.len(), document["paths"].as_object().unwrap().len());
        let text = document.to_string();
        let named: BTreeSet<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let defined: BTreeSet<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        assert_eq!(named, defined);
        let ids: BTreeSet<String> = ALL.iter().map(Operation::id).collect();
        assert_eq!(ids.len(), ALL.len(), "two operations have one id");
    }
}
