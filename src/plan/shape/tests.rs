//! Every form, for a plain server and for one that needs all escapes.

#![allow(clippy::unwrap_in_result, reason = "what does not parse is a fault of the test")]

use super::*;
use crate::keys::SecretText;
use serde_json::json;

fn server(host: &str, database: &str, sslmode: SslMode) -> ServerLogin {
    ServerLogin {
        record: "r".into(),
        host: host.into(),
        port: 5432,
        ports: vec![],
        username: "issuer".into(),
        password: SecretText::new("never-shown"),
        database: database.into(),
        sslmode,
        ca: None,
        client_certificate: None,
        client_key: None,
    }
}

fn shaped(server: &ServerLogin, target: &serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let target: TargetSecret = serde_json::from_value(target.clone()).unwrap();
    let login = Login {
        username: "shop_app_x",
        password: "pA9",
        server,
    };
    let keys = keys(login, Some(&target)).map_err(|(key, unfit)| format!("{key}: {unfit}"))?;
    Ok(keys
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into_owned()))
        .collect())
}

#[test]
fn without_a_wish_there_are_the_usual_keys() {
    let keys = shaped(&server("db", "orders", SslMode::Require), &json!({})).unwrap();
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    let usual = [
        "database", "host", "password", "port", "sslmode", "type", "uri", "username",
    ];
    assert_eq!(names, usual);
    assert_eq!(
        keys["uri"],
        "postgresql://shop_app_x:pA9@db:5432/orders?sslmode=require"
    );
}

#[test]
fn every_format_is_as_its_client_reads_it() {
    let all = json!({"formats": ["jdbc", "libpq", "pgpass", "dotnet"]});
    let keys = shaped(&server("db", "orders", SslMode::VerifyFull), &all).unwrap();
    for (key, value) in [
        (
            "jdbc-uri",
            "jdbc:postgresql://db:5432/orders?user=shop_app_x&password=pA9&sslmode=verify-full",
        ),
        ("pgpass", "db:5432:orders:shop_app_x:pA9\n"),
        (
            "dotnet",
            "Host=db;Port=5432;Database=orders;Username=shop_app_x;Password=pA9;SSL Mode=VerifyFull",
        ),
        ("PGHOST", "db"),
        ("PGPORT", "5432"),
        ("PGDATABASE", "orders"),
        ("PGUSER", "shop_app_x"),
        ("PGPASSWORD", "pA9"),
        ("PGSSLMODE", "verify-full"),
    ] {
        assert_eq!(keys.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!keys.contains_key("PGTARGETSESSIONATTRS"));
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let mut several = server("one,::1", "orders", SslMode::Disable);
    several.ports = vec![5432, 5433];
    let keys = shaped(&several, &json!({"formats": ["jdbc", "libpq", "pgpass", "dotnet"]})).unwrap();
    for (key, value) in [
        (
            "uri",
            "postgresql://shop_app_x:pA9@one:5432,[::1]:5433/orders?sslmode=disable&target_session_attrs=read-write",
        ),
        (
            "jdbc-uri",
            "jdbc:postgresql://one:5432,[::1]:5433/orders?user=shop_app_x&password=pA9&sslmode=disable&targetServerType=primary",
        ),
        (
            "pgpass",
            "one:5432:orders:shop_app_x:pA9\n\\:\\:1:5433:orders:shop_app_x:pA9\n",
        ),
        ("PGHOST", "one,::1"),
        ("PGPORT", "5432,5433"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ] {
        assert_eq!(keys.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(keys["dotnet"].starts_with("Host=one:5432,::1:5433;Database=orders;"));
    assert!(keys["dotnet"].ends_with("SSL Mode=Disable;Target Session Attributes=read-write"));
}

#[test]
fn odd_names_are_escaped_as_each_form_wants_it() {
    let odd = server("db", r#"a:b\c;"d/e"#, SslMode::Require);
    let keys = shaped(&odd, &json!({"formats": ["jdbc", "pgpass", "dotnet"]})).unwrap();
    assert!(keys["uri"].contains("/a%3Ab%5Cc%3B%22d%2Fe?"), "{}", keys["uri"]);
    assert!(keys["jdbc-uri"].contains("/a%3Ab%5Cc%3B%22d%2Fe?"));
    assert_eq!(keys["pgpass"], "db:5432:a\\:b\\\\c;\"d/e:shop_app_x:pA9\n");
    assert!(
        keys["dotnet"].contains(r#"Database="a:b\c;""d/e";"#),
        "{}",
        keys["dotnet"]
    );
}

#[test]
fn a_template_sees_all_keys_and_an_unfit_one_is_named() {
    let orders = server("db", "orders", SslMode::Require);
    let wish = json!({
        "formats": ["jdbc"],
        "template": {"app.properties": "url={{ jdbc-uri }}\nuser={{ username }}\n", "dsn.json": "{\"p\":{{ password | json }}}"},
    });
    let keys = shaped(&orders, &wish).unwrap();
    assert!(keys["app.properties"].starts_with("url=jdbc:postgresql://db:5432/"));
    assert_eq!(keys["dsn.json"], r#"{"p":"pA9"}"#);
    let error = shaped(&orders, &json!({"template": {"x": "{{ jdbc-uri }}"}})).unwrap_err();
    assert!(
        error.starts_with("x: `{{ jdbc-uri }}` names no key; there are database, host,"),
        "{error}"
    );
}
