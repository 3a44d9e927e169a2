//! Sources as Secret Server shows them: secrets of this API with a number, fields and slugs.

use super::number;
use super::page::Page;
use crate::api::DynamicSecret;
use crate::cluster::numbers::{self, Entry, Numbered};
use crate::cluster::objects;
use crate::plan::sync::source::{self, Field};
use crate::vault::Vault;
use crate::vault::call::Call;
use crate::vault::caller::Caller;
use crate::vault::ids;
use crate::vault::path::SecretPath;
use crate::vault::reply::{Refusal, Reply};
use crate::vault::secrets::item::{Item, Stamp};
use crate::vault::secrets::kept::{Kept, SECRET_TYPE};
use crate::vault::secrets::{Asked, Space};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Attribute that names the template.
const TEMPLATE: &str = "secretTemplateId";

struct Template {
    id: i64,
    name: &'static str,
    fields: &'static [(&'static str, bool)],
}

/// Number, name, and fields with whether they are to be given. One without fields takes any.
const TEMPLATES: [Template; 3] = [
    Template {
        id: 1,
        name: "DevOps Secret Vault Client Credentials",
        fields: &[
            ("Client ID", true),
            ("Client Secret", true),
            ("Tenant URL", true),
            ("Role", false),
            ("CA Bundle", false),
            ("Notes", false),
        ],
    },
    Template {
        id: 2,
        name: "Secret",
        fields: &[],
    },
    Template {
        id: 3,
        name: "Dynamic Secret",
        fields: &[],
    },
];
const CREDENTIALS: i64 = 1;
const ANY: i64 = 2;
const DYNAMIC: i64 = 3;

fn template(id: i64) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.id == id)
}

impl Template {
    fn shown(&self) -> Map<String, Value> {
        let fields: Vec<Value> = self
            .fields
            .iter()
            .map(|(name, required)| {
                json!({
                    "name": name,
                    "displayName": name,
                    "fieldSlugName": source::slug(name),
                    "isRequired": required,
                    "isPassword": *name == "Client Secret",
                    "isNotes": *name == "Notes",
                })
            })
            .collect();
        let shown = json!({"id": self.id, "name": self.name, "active": true, "fields": fields});
        shown.as_object().cloned().unwrap_or_default()
    }
}

/// `GET /api/v1/secret-templates` and one of them.
pub fn templates(call: &Call, rest: &[&str]) -> Result<Reply, Refusal> {
    match rest {
        [] => {
            let asked = call.asked("filter.searchText").unwrap_or_default().to_lowercase();
            let all = TEMPLATES.iter().filter(|t| t.name.to_lowercase().contains(&asked));
            Ok(Reply::ok(Page::read(call)?.of(all.map(Template::shown).collect())))
        }
        [id] => {
            let found = template(number(id)?).ok_or_else(Refusal::not_found)?;
            Ok(Reply::ok(found.shown().into()))
        }
        _ => Err(Refusal::not_found()),
    }
}

/// A source that a caller may use.
pub struct Source {
    /// Name of its object.
    pub object: String,
    /// Its fields; none of a dynamic secret, whose credential has its own.
    pub fields: Option<Vec<Field>>,
}

impl Vault {
    /// The source of a number, if the caller may read it. One that he may not read looks like one that does not exist.
    pub(super) async fn source(&self, call: &Call, caller: &Caller, id: i64) -> Result<Source, Refusal> {
        let numbers = self.numbers(call).await?;
        let entry = numbers.get(Numbered::Source, id);
        let entry = entry.ok_or_else(|| unknown(id))?;
        let (item, fields) = self.source_of(call, entry).await?.ok_or_else(|| unknown(id))?;
        if !self.may(call, caller, "read", &format!("secrets:{}", item.path)) {
            return Err(unknown(id));
        }
        let object = entry.name.split_once('/').map(|(_, object)| object);
        Ok(Source {
            object: object.unwrap_or_default().to_owned(),
            fields,
        })
    }

    async fn source_of(&self, call: &Call, entry: &Entry) -> Result<Option<(Item, Option<Vec<Field>>)>, Refusal> {
        let namespace = &call.tenant.namespace;
        match entry.name.split_once('/') {
            Some(("secret", name)) => {
                let secret = objects::read::<Secret>(&self.client, namespace, name).await?;
                // No other Secret is ever read for a client of this API.
                let secret = secret.filter(|secret| secret.type_.as_deref() == Some(SECRET_TYPE));
                let secret = secret.filter(|secret| is_shared(secret) && !Item::of(secret).is_marked());
                secret
                    .map(|secret| Ok((Item::of(&secret), Some(fields(&secret)?))))
                    .transpose()
            }
            Some(("dynamic", name)) => {
                let found = objects::read::<DynamicSecret>(&self.client, namespace, name).await?;
                let found = found.filter(|one| one.metadata.deletion_timestamp.is_none());
                Ok(found.map(|one| (Item::of(&one), None)))
            }
            _ => Ok(None),
        }
    }

    /// `POST /api/v1/secrets`.
    pub(super) async fn add_source(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let name = body.required("name")?;
        let id = body.get("secrettemplateid").and_then(Value::as_i64).unwrap_or(ANY);
        let template = template(id).filter(|template| template.id != DYNAMIC);
        let template = template.ok_or_else(|| wrong_template(id))?;
        let data = items(body.get("items"), template)?;
        let path = SecretPath::parse(&source::slug(name));
        let path = path.map_err(|_| super::form::wrong("name", "must contain a letter or a number"))?;
        let asked = Asked {
            call,
            caller,
            space: Space::Secrets,
        };
        self.require(call, caller, "create", &format!("secrets:{path}"))?;
        if self.at_path(&asked, &path).await?.is_some() {
            return Err(super::form::wrong("name", "is taken by another secret"));
        }
        let item = Item {
            id: ids::id(&call.tenant.uid, Space::Secrets.kind(), path.as_str()).to_string(),
            path: path.to_string(),
            attributes: [(TEMPLATE.to_owned(), json!(id))].into_iter().collect(),
            description: name.to_owned(),
            record: Stamp::first(&caller.subject),
        };
        let kept = Kept::new(item, data, &call.tenant.namespace);
        self.make_kept(&asked, &kept, &path).await?;
        let made = objects::read::<Secret>(&self.client, &call.tenant.namespace, &kept.item.id).await?;
        let made = made.ok_or_else(Refusal::not_found)?;
        let what = (Numbered::Source, made.uid().unwrap_or_default(), source_name(&made));
        let home = &self.settings.home;
        let given = numbers::assign(&self.client, home, &call.tenant.namespace, (what.0, &what.1, &what.2)).await?;
        Ok(Reply::ok(shown(given, &Item::of(&made), Some(&fields(&made)?)).into()))
    }

    /// `GET /api/v1/secrets`: names and numbers, no values. What has no number yet is given one.
    pub(super) async fn list_sources(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let asked = call.asked("filter.searchText").unwrap_or_default().to_lowercase();
        let namespace = &call.tenant.namespace;
        let kept = self.secrets.all(namespace).into_iter();
        let all: Vec<_> = kept.chain(self.dynamic.all(namespace)).collect();
        let visible = all.iter().filter(|entry| {
            let item = &entry.value.item;
            entry.value.kind == Space::Secrets.kind()
                && !item.is_marked()
                && shown_name(item).to_lowercase().contains(&asked)
                && self.may(call, caller, "list", &format!("secrets:{}", item.path))
        });
        let visible: Vec<_> = visible.collect();
        let names: Vec<(String, String)> = visible
            .iter()
            .map(|entry| {
                let kind = if entry.value.dynamic.is_some() {
                    "dynamic"
                } else {
                    "secret"
                };
                (entry.value.uid.clone(), format!("{kind}/{}", entry.object))
            })
            .collect();
        let home = &self.settings.home;
        let numbers = numbers::assign_all(&self.client, home, namespace, (Numbered::Source, &names)).await?;
        let mut records = Vec::new();
        for entry in visible {
            if let Some(number) = numbers.of(Numbered::Source, &entry.value.uid) {
                let mut record = shown(number, &entry.value.item, None);
                record.remove("items");
                records.push((number, record));
            }
        }
        records.sort_by_key(|(number, _)| *number);
        let records = records.into_iter().map(|(_, record)| record).collect();
        Ok(Reply::ok(Page::read(call)?.of(records)))
    }

    /// `GET /api/v1/secrets/{id}`, with its values.
    pub(super) async fn show_source(&self, call: &Call, caller: &Caller, id: &str) -> Result<Reply, Refusal> {
        let id = number(id)?;
        // Asks whether he may.
        self.source(call, caller, id).await?;
        let numbers = self.numbers(call).await?;
        let entry = numbers.get(Numbered::Source, id).ok_or_else(|| unknown(id))?;
        let (item, fields) = self.source_of(call, entry).await?.ok_or_else(|| unknown(id))?;
        Ok(Reply::ok(shown(id, &item, fields.as_deref()).into()))
    }
}

fn unknown(id: i64) -> Refusal {
    Refusal::bad(format!("there is no secret with the id {id}, or you may not read it")).with("secretId", "is unknown")
}

fn wrong_template(id: i64) -> Refusal {
    let text = format!("{id} is no template that secrets can be made of; see GET /api/v1/secret-templates");
    super::form::wrong("secretTemplateId", &text)
}

fn source_name(secret: &Secret) -> String {
    format!("secret/{}", secret.name_any())
}

/// Homes are their owner's and no source of anything.
fn is_shared(secret: &Secret) -> bool {
    let label = secret.labels().get(crate::vault::secrets::kept::SECRET_LABEL);
    label.map(String::as_str) != Some(ids::Kind::Home.word())
}

fn fields(secret: &Secret) -> Result<Vec<Field>, Refusal> {
    let data: BTreeMap<String, Vec<u8>> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.clone(), bytes.0.clone()))
        .collect();
    source::fields(secret.type_.as_deref(), &data, secret.annotations())
        .map_err(|error| Refusal::bad(error.to_string()))
}

/// A secret that was made by another call of this API is called by its path.
fn shown_name(item: &Item) -> String {
    let is_named = item.attributes.contains_key(TEMPLATE) && !item.description.is_empty();
    if is_named {
        item.description.clone()
    } else {
        item.path.clone()
    }
}

fn shown(id: i64, item: &Item, fields: Option<&[Field]>) -> Map<String, Value> {
    let template_id = match item.attributes.get(TEMPLATE).and_then(Value::as_i64) {
        Some(id) => id,
        None if crate::vault::secrets::attributes::is_dynamic(&item.attributes) => DYNAMIC,
        None => ANY,
    };
    let items: Vec<Value> = fields
        .unwrap_or_default()
        .iter()
        .map(|field| json!({"fieldName": field.name, "slug": field.slug, "itemValue": field.value}))
        .collect();
    let shown = json!({
        "id": id,
        "name": shown_name(item),
        "path": item.path,
        "secretTemplateId": template_id,
        "secretTemplateName": template(template_id).map(|template| template.name),
        "active": true,
        "items": items,
    });
    shown.as_object().cloned().unwrap_or_default()
}

/// The values of a new secret, by the names of its template's fields.
fn items(given: Option<&Value>, template: &Template) -> Result<Map<String, Value>, Refusal> {
    let wrong = |fault: &str| super::form::wrong("items", fault);
    let given = match given {
        None => &Vec::new(),
        Some(Value::Array(all)) => all,
        Some(_) => return Err(wrong("must be a list")),
    };
    let mut data = Map::new();
    for item in given {
        let text = |key: &str| item.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("fieldName").or_else(|| text("slug"));
        let name = name.ok_or_else(|| wrong("each needs a fieldName or a slug"))?;
        let slug = text("slug").map_or_else(|| source::slug(name), str::to_owned);
        let of_template = template.fields.iter().find(|(known, _)| source::slug(known) == slug);
        let name = match of_template {
            Some((known, _)) => (*known).to_owned(),
            None if template.fields.is_empty() => name.to_owned(),
            None => return Err(wrong(&format!("the template has no field {slug}"))),
        };
        let value = item.get("itemValue").cloned().unwrap_or_default();
        if !value.is_string() {
            return Err(wrong("each itemValue must be a text"));
        }
        if data.insert(name.clone(), value).is_some() {
            return Err(wrong(&format!("the field {name} is given twice")));
        }
    }
    let missing: Vec<&str> = template
        .fields
        .iter()
        .filter(|(name, required)| *required && !data.contains_key(*name))
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        return Err(wrong(&format!("these fields are required: {}", missing.join(", "))));
    }
    Ok(data)
}

/// Whether these are the fields of a login for a DSV tenant.
pub fn is_login(fields: &[Field]) -> bool {
    let has = |slugs: &[&str]| fields.iter().any(|field| slugs.contains(&field.slug.as_str()));
    template(CREDENTIALS).is_some()
        && has(&["client-id"])
        && has(&["client-secret", "secret"])
        && has(&["tenant-url", "tenant"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_held_against_their_template() {
        let credentials = template(CREDENTIALS).unwrap();
        let given = json!([
            {"slug": "client-id", "itemValue": "a"},
            {"fieldName": "Client Secret", "itemValue": "b"},
            {"fieldName": "tenant url", "itemValue": "https://t.example"},
        ]);
        let data = items(Some(&given), credentials).unwrap();
        let names: Vec<_> = data.keys().map(String::as_str).collect();
        assert_eq!(names, ["Client ID", "Client Secret", "Tenant URL"]);
        for (given, says) in [
            (
                json!([{"slug": "client-id", "itemValue": "a"}]),
                "Client Secret, Tenant URL",
            ),
            (json!([{"slug": "other", "itemValue": "a"}]), "no field other"),
            (json!([{"itemValue": "hunter2"}]), "fieldName or a slug"),
            (json!([{"slug": "client-id", "itemValue": 1}]), "must be a text"),
            (json!({}), "must be a list"),
        ] {
            let refusal = items(Some(&given), credentials).unwrap_err();
            assert!(
                refusal.message.contains(says) && !refusal.message.contains("hunter2"),
                "{refusal:?}"
            );
        }
        let any = items(
            Some(&json!([{"fieldName": "User Name", "itemValue": "x"}])),
            template(ANY).unwrap(),
        );
        assert_eq!(any.unwrap()["User Name"], "x");
    }
}
