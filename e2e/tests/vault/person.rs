//! Somebody at the page, without a browser: cookies, forms, and what the pages say.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::objects::text;
use regex::Regex;
use serde_json::{Value, json};

use crate::world::{Answer, World, fresh};

pub const SESSION: &str = "__Secure-dsv-admin";

pub struct Person<'a> {
    pub world: &'a World,
    pub cookies: BTreeMap<String, String>,
    /// What the forms of the last page held.
    pub csrf: String,
    /// Requests that were sent: each goes to the next replica.
    sent: usize,
}

impl<'a> Person<'a> {
    pub fn new(world: &'a World) -> Self {
        Self {
            world,
            cookies: BTreeMap::new(),
            csrf: String::new(),
            sent: 0,
        }
    }

    /// Somebody who has signed in.
    pub async fn signed_in(world: &'a World, user: &str, password: &str) -> Self {
        let mut person = Self::new(world);
        let answer = person.sign_in(user, password).await;
        assert_eq!(answer.code, 303, "{}", answer.text);
        assert_eq!(place(&answer), "/admin");
        person.known().await;
        person
    }

    /// Waits until both replicas know who this is: of a user who was made just now one may hear a moment later.
    pub async fn known(&mut self) {
        self.until("/admin", "<h1>").await;
        self.until("/admin", "<h1>").await;
    }

    /// The page as soon as it says something.
    pub async fn until(&mut self, path: &str, what: &str) -> String {
        for _ in 0..240 {
            let answer = self.get(path).await;
            if answer.code == 200 && answer.text.contains(what) {
                return answer.text;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("{path} does not say {what}: {}", self.get(path).await.text);
    }

    pub async fn sign_in(&mut self, user: &str, password: &str) -> Answer {
        self.get("/admin/sign-in").await;
        self.post("/admin/sign-in", &[("username", user), ("password", password)])
            .await
    }

    pub async fn send(&mut self, method: &str, path: &str, more: &[(&str, &str)], body: String) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![("Cookie", cookies.as_str())];
        headers.extend(more);
        self.sent += 1;
        let replica = self.sent % 2;
        let answer = self
            .world
            .send(replica, method, path, &headers, body.into_bytes())
            .await
            .unwrap();
        for cookie in answer.headers.get_all("set-cookie") {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let form = Regex::new(r#"name="csrf" value="([^"]+)""#).unwrap();
        if let Some(found) = form.captures(&answer.text) {
            found[1].clone_into(&mut self.csrf);
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    /// The page, which must be there.
    pub async fn page(&mut self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text);
        answer.text
    }

    /// Sends a form as the last page had it.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf.clone();
        self.post_with(path, &csrf, &[], fields).await
    }

    pub async fn post_with(
        &mut self,
        path: &str,
        csrf: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut body = form(fields);
        if !csrf.is_empty() {
            body = format!("{body}&csrf={csrf}");
        }
        let mut all = vec![("Content-Type", "application/x-www-form-urlencoded")];
        all.extend(headers);
        self.send("POST", path, &all, body).await
    }
}

/// A form's body; each byte is written in the long way, so nothing has a meaning.
fn form(fields: &[(&str, &str)]) -> String {
    let sign = |at: usize| at.is_multiple_of(2).then_some('%');
    let long = |text: &str| {
        let digits = data_encoding::HEXUPPER.encode(text.as_bytes());
        let signed = digits
            .chars()
            .enumerate()
            .flat_map(|(at, digit)| sign(at).into_iter().chain([digit]));
        signed.collect::<String>()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", long(value)))
        .collect();
    pairs.join("&")
}

/// Where an answer leads.
pub fn place(answer: &Answer) -> String {
    let place = answer.headers.get("location").and_then(|value| value.to_str().ok());
    place.unwrap_or_default().to_owned()
}

/// A user who may do what the statements say; his password is his name.
pub async fn user(world: &World, statements: &[Value]) -> String {
    let name = fresh("person");
    let statements: Vec<Value> = statements
        .iter()
        .map(|statement| {
            let mut statement = statement.clone();
            statement["subjects"] = json!([format!("users:{name}")]);
            statement["effect"] = json!("allow");
            statement
        })
        .collect();
    if !statements.is_empty() {
        let document = json!({"permissionDocument": statements}).to_string();
        let body = json!({"path": format!("secrets:{name}"), "policy": document, "serialization": "json"});
        world.call("POST config/policies/", &body).await.is(201);
    }
    // Last: a replica that knows the user knows what he may do.
    let body = json!({"userName": name, "password": name, "displayName": ""});
    world.call("POST users/", &body).await.is(201);
    name
}

/// A secret of Secret Server's calls; returns its number.
pub async fn source(world: &World, name: &str, template: i64, items: &[(&str, &str)]) -> String {
    let items: Vec<Value> = items
        .iter()
        .map(|(field, value)| json!({"fieldName": field, "itemValue": value}))
        .collect();
    let body = json!({"name": name, "secretTemplateId": template, "items": items}).to_string();
    let headers = [
        ("Authorization", world.admin.as_str()),
        ("Content-Type", "application/json"),
    ];
    let made = world
        .send(0, "POST", "/api/v1/secrets", &headers, body.into_bytes())
        .await
        .unwrap();
    made.is(200)["id"].to_string()
}

/// A login for our own API that may write below `root`; returns its number and its client secret.
pub async fn login(world: &World, name: &str, root: &str) -> (String, String) {
    let resources = [format!("secrets:{root}:<.*>")];
    let statement = json!({"actions": ["<create|read|update|delete>"], "resources": resources});
    let (id, secret) = world.client(&statement).await;
    let items = [
        ("Client ID", id.as_str()),
        ("Client Secret", &secret),
        ("Tenant URL", &world.url()),
        ("CA Bundle", &world.authority),
    ];
    (source(world, name, 1, &items).await, secret)
}

/// The lines of the audit stream of one replica that are about an address.
pub async fn audit_of(world: &World, replica: usize, path: &str) -> Vec<Value> {
    let answer = world
        .at(
            replica,
            &world.admin,
            &format!("GET audit?limit=1000&path={path}"),
            &Value::Null,
        )
        .await;
    let found = answer.is(200)["data"].as_array().unwrap().clone();
    found.into_iter().filter(|line| text(line, "/path") == path).collect()
}
