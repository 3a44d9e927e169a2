//! The stock CLI's commands for roles, clients, users, groups and policies; the scenario is in `stock_cli`.

use e2e::objects::text;
use serde_json::json;

use crate::stock::{Cli, MARKED, NOT_FOUND};
use crate::world::{World, fresh};

/// Roles, clients, users and groups.
pub async fn principals(world: &World, cli: &Cli) {
    let (role, user, group) = (fresh("role"), fresh("user"), fresh("group"));
    let made = cli.dsv(&format!("role create --name {role} --desc one")).await.json();
    assert_eq!(
        (text(&made, "/name"), text(&made, "/description")),
        (role.clone(), "one".into())
    );
    cli.dsv(&format!("role create --name {role}"))
        .await
        .fails(r#""message": "a security principal with this name already exists""#);
    assert_eq!(cli.dsv(&format!("role {role}")).await.json(), made);
    let updated = cli.dsv(&format!("role update --name {role} --desc two")).await.json();
    assert_eq!(
        (text(&updated, "/description"), text(&updated, "/version")),
        ("two".into(), "1".into())
    );
    let found = cli.dsv(&format!("role search --query {role} --limit 5")).await.json();
    assert_eq!(text(&found, "/data/0/name"), role);
    let gone = cli.dsv(&format!("role delete -n {role}")).await.text();
    assert!(gone.contains(&format!("role {MARKED}")), "{gone}");
    cli.dsv(&format!("role restore -n {role}")).await.silent();
    clients(world, cli, &role).await;

    let create = format!("user create --username {user} --password pa55-word~!@#$%^&*()");
    let made = cli.dsv(&create).await.json();
    for (key, value) in [
        ("userName", user.as_str()),
        ("displayName", ""),
        ("provider", ""),
        ("externalId", ""),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    cli.dsv(&create).await.fails(r#""code": 400"#);
    cli.dsv("user create --username bob --external-id 1234")
        .await
        .fails("provider is required");
    cli.dsv("user create --username bob --provider 4321")
        .await
        .fails("unable to find authentication provider");
    assert_eq!(cli.dsv(&format!("user read {user}")).await.json(), made);
    let found = cli.dsv(&format!("user search {user} --limit 10")).await.json();
    assert_eq!((&found["limit"], &found["total"]), (&json!(10), &json!(1)));
    let updated = cli
        .dsv(&format!("user update --username {user} --password an0ther-word"))
        .await;
    assert_eq!(text(&updated.json(), "/userName"), user);
    let granted = cli
        .dsv(&format!("auth --auth-type password -u {user} -p an0ther-word"))
        .await;
    assert!(granted.text().contains("accessToken"));

    let members = format!("--group-name {group} --members");
    let made = cli.dsv(&format!("group create {members} {user}")).await.json();
    assert_eq!(
        (&made["errors"], &made["addedMemberNames"]),
        (&json!({}), &json!([user]))
    );
    let read = cli.dsv(&format!("group read {group}")).await.json();
    assert_eq!(read["members"], json!([user]));
    let groups = cli.dsv(&format!("user groups --username {user}")).await.text();
    assert!(groups.contains(&group), "{groups}");
    cli.dsv(&format!("group delete-members {members} {user}"))
        .await
        .silent();
    cli.dsv(&format!("group add-members {members} {user},nobody"))
        .await
        .json();
    let found = cli.dsv(&format!("group search {group}")).await.json();
    assert_eq!(found.pointer("/data/0/members"), Some(&json!([user])));
    for one in [format!("group {group}"), format!("user {user}")] {
        let (kind, name) = one.split_once(' ').unwrap();
        let gone = cli.dsv(&format!("{kind} delete {name}")).await.text();
        assert!(gone.contains(MARKED), "{gone}");
        cli.dsv(&format!("{kind} read {name}")).await.fails(MARKED);
        cli.dsv(&format!("{kind} restore {name}")).await.silent();
        cli.dsv(&format!("{kind} delete {name} --force")).await.silent();
        cli.dsv(&format!("{kind} read {name}")).await.fails(NOT_FOUND);
    }
}

/// Client credentials, and what they may.
async fn clients(world: &World, cli: &Cli, role: &str) {
    let made = cli.dsv(&format!("client create --role {role}")).await.json();
    let (id, secret) = (text(&made, "/clientId"), text(&made, "/clientSecret"));
    cli.dsv(&format!("client create --role {role}-none"))
        .await
        .fails(r#""code": 400"#);
    let read = cli.dsv(&format!("client read --client-id {id}")).await.json();
    assert!(
        read.get("clientSecret").is_none() && text(&read, "/role") == role,
        "{read}"
    );
    let found = cli.dsv(&format!("client search --role {role}")).await.json();
    assert_eq!(
        (&found["total"], text(&found, "/data/0/clientId")),
        (&json!(1), id.clone())
    );
    let open = fresh("open");
    let statement = format!("--resources secrets:{open}:<.*> --actions read --subjects roles:{role}");
    cli.dsv(&format!("policy create --path secrets:{open} {statement}"))
        .await
        .json();
    cli.dsv(&format!(r#"secret create --path {open}/a --data {{"v":"x"}}"#))
        .await
        .json();
    let acting = Cli::of_client(world, (&id, &secret)).await;
    assert_eq!(acting.dsv("whoami").await.text(), format!("roles:{role}"));
    assert_eq!(acting.dsv(&format!("secret read {open}:a -f data.v")).await.text(), "x");
    for forbidden in [
        format!(r#"secret update {open}/a --data {{"v":"y"}}"#),
        "secret read none-of-yours".to_owned(),
        "usage --startdate 2026-01-01".to_owned(),
    ] {
        acting.dsv(&forbidden).await.fails("Invalid permissions");
    }
    let url = cli
        .dsv(&format!("client create --role {role} --url --url-ttl 60"))
        .await
        .json();
    assert!(
        url.get("clientSecret").is_none() && text(&url, "/url").starts_with("https://"),
        "{url}"
    );
    cli.dsv(&format!("role delete {role} --force"))
        .await
        .fails("cannot delete role");
    let gone = cli.dsv(&format!("client delete --client-id {id}")).await.text();
    assert!(gone.contains(MARKED), "{gone}");
    acting
        .dsv(&format!("secret read {open}:a"))
        .await
        .fails(r#"{"code":401,"message":"unable to authenticate"}"#);
    cli.dsv(&format!("client restore --client-id {id}")).await.silent();
    for id in [id, text(&url, "/clientId")] {
        cli.dsv(&format!("client delete --client-id {id} --force"))
            .await
            .silent();
    }
    cli.dsv(&format!("role delete {role} --force")).await.silent();
    cli.dsv(&format!("role delete {role} --force")).await.fails(NOT_FOUND);
}

pub async fn policies(cli: &Cli) {
    let path = format!("secrets:{}", fresh("policy"));
    let create = format!("policy create --path {path} --actions read --subjects users:somebody --cidr 10.0.0.0/8");
    let made = cli.dsv(&create).await.json();
    assert_eq!(text(&made, "/path"), path);
    assert_eq!(
        made.pointer("/permissionDocument/0/actions"),
        Some(&json!(["read"])),
        "{made}"
    );
    cli.dsv(&create).await.fails("already exists");
    assert_eq!(cli.dsv(&format!("policy read --path {path}")).await.json(), made);
    let update = format!("policy update --path {path} --actions read,delete --subjects users:somebody");
    let updated = cli.dsv(&update).await.json();
    assert_eq!(
        updated.pointer("/permissionDocument/0/actions"),
        Some(&json!(["read", "delete"]))
    );
    let found = cli.dsv(&format!("policy search --query {path}")).await.json();
    assert_eq!(text(&found, "/data/0/path"), path);
    let back = cli.dsv(&format!("policy rollback --path {path}")).await.json();
    assert_eq!(back["permissionDocument"], made["permissionDocument"]);
    let versions = cli.dsv(&format!("policy read --path {path} --version 3")).await.json();
    assert_eq!(versions["data"].as_array().unwrap().len(), 3);
    let gone = cli.dsv(&format!("policy delete {path}")).await.text();
    assert!(gone.contains(MARKED), "{gone}");
    cli.dsv(&format!("policy read {path}")).await.fails(MARKED);
    cli.dsv(&format!("policy restore {path}")).await.silent();
    cli.dsv(&format!("policy delete {path} --force")).await.silent();
    cli.dsv(&format!("policy read {path}")).await.fails(NOT_FOUND);
}
