//! The stock CLI, unchanged: each command of it that this API serves, and what it prints where one is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use e2e::engine::Engine;
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::places;
use e2e::postgres::Login;
use serde_json::{Value, json};

use crate::stock::{Cli, MARKED, NOT_FOUND, Said, proxy};
use crate::stock_people::{policies, principals};
use crate::world::{World, fresh, world};

/// `dsv init` with a password.
async fn init(cli: &Cli, (tenant, domain): (&str, &str), (user, password): (&str, &str)) -> Said {
    let init = [
        "init",
        "--tenant",
        tenant,
        "--domain",
        domain,
        "--store-type",
        "file",
        "--store-path",
        "store",
    ];
    let login = [
        "--cache-strategy",
        "server",
        "--auth-type",
        "password",
        "--auth-username",
        user,
    ];
    let all = [&init[..], &login[..], &["--auth-password", password]].concat();
    cli.run(&all).await
}

const SAVED: &str = "CLI configuration file successfully saved.";

/// The administrator at his terminal, after `dsv init`.
async fn administrator(world: &World) -> Cli {
    let cli = Cli::new(world).await;
    let domain = format!("1:{}", world.port());
    let at = ("127.0.0", domain.as_str());
    init(&cli, at, ("admin", "wrong password"))
        .await
        .fails("Failed to authenticate");
    let saved = init(&cli, at, ("admin", &world.password)).await.text();
    assert!(saved.contains(SAVED), "{saved}");
    cli
}

/// Whoever installed it opened a tenant, and `dsv init` makes its first administrator.
async fn first_of_a_tenant(world: &World) {
    let tenant = fresh("tenant");
    let kubectl = |args: &[&str]| world.stack.kubectl(args).unwrap();
    kubectl(&["create", "namespace", &tenant]);
    kubectl(&["label", "namespace", &tenant, "dsv.dev/tenant=true"]);
    let opening = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "dsv.dev/internal",
        "metadata": {
            "name": format!("dsv-open-{tenant}"), "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "dsv-operator"}, "annotations": {"dsv.dev/until": "2100-01-01T00:00:00Z"},
        },
    });
    world.objects().await.create(&opening).await.unwrap();
    let mut cli = Cli::new(world).await;
    cli.set("HTTPS_PROXY", &proxy(world.address()).await);
    let at = (tenant.as_str(), "dsv.test");
    let chief = ("chief", "long enough");
    // Known to all replicas within a second.
    let opened = || async {
        let said = init(&cli, at, chief).await;
        let well = said.out.contains(SAVED);
        anyhow::ensure!(well, "{said:?}");
        Ok(Some(()))
    };
    let limit = std::time::Duration::from_mins(1);
    world
        .stack
        .eventually("the tenant is initialised", limit, opened)
        .await
        .unwrap();
    assert_eq!(cli.dsv("whoami").await.text(), "users:chief");
    let path = fresh("own");
    cli.dsv(&format!(r#"secret create --path {path} --data {{"a":"b"}}"#))
        .await
        .json();
    world
        .get(&format!("secrets/{path}"))
        .await
        .fails(404, "unable to find item");
    // It serves once: another one finds a tenant with an administrator, and has to log in.
    let mut other = Cli::new(world).await;
    other.set("HTTPS_PROXY", &proxy(world.address()).await);
    init(&other, at, ("intruder", "long enough"))
        .await
        .fails("Failed to authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_cli_does_what_it_does_with_dsv() {
    let world = world().await;
    let cli = administrator(world).await;
    let granted = cli.dsv("auth").await.json();
    assert_eq!(text(&granted, "/accessToken").split('.').count(), 3);
    assert_eq!(cli.dsv("whoami").await.text(), "users:admin");
    let failed = cli.dsv("auth --auth-type password -u admin -p wrong-password").await;
    failed.fails(r#"{"code":401,"message":"unable to authenticate"}"#);
    tokio::join!(
        Box::pin(accounts(world, &cli)),
        Box::pin(secrets(&cli)),
        Box::pin(principals(world, &cli)),
        Box::pin(policies(&cli)),
        Box::pin(homes_and_figures(&cli)),
        Box::pin(first_of_a_tenant(world)),
    );
}

/// Pools, engines, a base secret, a dynamic secret, and a login with what it gave.
async fn accounts(world: &World, cli: &Cli) {
    let (pool, spare, engine) = (fresh("Pool"), fresh("pool"), fresh("Engine"));
    let made = cli.dsv(&format!("pool create --name {pool}")).await.json();
    assert_eq!(
        (text(&made, "/name"), text(&made, "/createdBy")),
        (pool.clone(), "users:admin".into())
    );
    cli.dsv(&format!("pool create --name {spare}")).await.json();
    assert_eq!(cli.dsv(&format!("pool read {pool}")).await.json(), made);
    let page = cli.dsv("pool list --limit 1 --sort asc --sorted-by name").await.json();
    assert_eq!((&page["length"], &page["limit"]), (&json!(1), &json!(1)));
    cli.dsv(&format!("pool delete {spare}")).await.silent();
    cli.dsv(&format!("pool read {spare}")).await.fails(NOT_FOUND);

    cli.dsv(&format!("engine read {engine}")).await.fails(NOT_FOUND);
    cli.dsv(&format!("engine create --name {engine} --pool-name {spare}"))
        .await
        .fails(r#""message": "specified pool doesn't exist""#);
    let create = format!("engine create --name {engine} --pool-name {pool}");
    let made = cli.dsv(&create).await.json();
    let other = fresh("zz");
    registers_itself(world, cli, &pool, &other).await;
    let read = cli.dsv(&format!("engine read --name {engine}")).await.json();
    assert_eq!(text(&read, "/publicKey"), text(&made, "/publicKey"));
    assert!(read.get("privateKey").is_none() && !text(&made, "/privateKey").is_empty());
    let list = format!("engine list --sort asc --sorted-by name --pool-name {pool}");
    let list = cli.dsv(&list).await.json();
    let names = |list: &Value| {
        let all = list["engines"].as_array().unwrap().iter();
        all.map(|engine| text(engine, "/name")).collect::<Vec<_>>()
    };
    assert_eq!(names(&list), [engine.clone(), other.clone()]);
    let list = cli.dsv(&format!("engine list --query {other}")).await.json();
    assert_eq!(names(&list), std::slice::from_ref(&other));
    cli.dsv(&format!("engine ping {engine}")).await.fails("not connected");
    let registration = BTreeMap::from([
        ("ENGINE_NAME".to_owned(), engine.clone()),
        ("DSV_ENDPOINT".to_owned(), text(&made, "/endpoint")),
        ("DSV_PRIVATE_KEY".to_owned(), text(&made, "/privateKey")),
    ]);
    let running = Engine::start(world.stack.run(), &engine, &registration, None).unwrap();
    running.wait_ready().await.unwrap();
    let pong = cli.dsv(&format!("engine ping --name {engine}")).await.json();
    assert!(text(&pong, "/message").contains("answered in"), "{pong}");

    let login = account(world, cli, &pool).await;
    let session = world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    let rows = session.query("SELECT item FROM public.orders", &[]).await.unwrap();
    assert_eq!(rows.len(), 3);
    cli.dsv(&format!("engine delete {other}")).await.silent();
    drop(running);
}

/// With the token that `dsv auth` prints, as the manual's container does.
async fn registers_itself(world: &World, cli: &Cli, pool: &str, engine: &str) {
    let token = cli.dsv("auth -f accessToken").await.text();
    let mut command = Command::new(places::own_program("dsv-engine").unwrap());
    let url = format!("1:{}", world.port());
    command
        .args(["register", "--tenant", "127.0.0", "--url", url.as_str()])
        .args(["--engine-name", engine, "--pool-name", pool])
        .arg("--ca-file")
        .arg(cli.home.join("ca.pem"))
        .env_clear()
        .env("HOME", &cli.home)
        .env("DSV_TOKEN", token);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A base secret and a dynamic one as in the manual, and an account of it.
async fn account(world: &World, cli: &Cli, pool: &str) -> Login {
    let (server, issuer) = (world.stack.postgres(), world.stack.issuer());
    let (root, path) = (format!("db/{}", fresh("root")), format!("db/{}", fresh("dyn")));
    let data = json!({
        "host": server.host(), "port": server.port(), "username": issuer.user, "password": issuer.password,
        "database": "orders", "sslmode": "verify-full", "ca.crt": server.authority(),
    });
    let data = cli.file(&data.to_string());
    let kind = |kind: &str| json!({"type": kind}).to_string();
    let create = ["secret", "create", "--path", &root, "--data", &data, "--attributes"];
    let (mysql, postgresql) = (kind("mysql"), kind("postgresql"));
    let with = |attributes| [&create[..], &[attributes]].concat();
    cli.run(&with(mysql.as_str()))
        .await
        .fails("type mysql is not supported");
    let made = cli.run(&with(postgresql.as_str())).await.json();
    assert_eq!(made["attributes"], json!({"type": "postgresql"}));
    let attributes = json!({
        "linkConfig": {"linkType": "dynamic", "linkedSecret": root.replace('/', ":")},
        "grantPermissions": {"what": "SELECT", "where": "public.orders"},
        "pool": pool, "ttl": 1000, "userPrefix": "cli_",
    });
    let attributes = cli.file(&attributes.to_string());
    let create = ["secret", "create", "-r", &path, "--attributes", &attributes];
    let made = cli.run(&create).await.json();
    assert_eq!(
        (&made["data"], &made["attributes"]["ttl"]),
        (&json!({}), &json!(1000)),
        "{made}"
    );
    let linked = root.replace('/', ":");
    let found = cli.dsv(&format!("secret search {linked} --search-links")).await.json();
    assert_eq!(
        (&found["total"], text(&found, "/data/0/path")),
        (&json!(1), path.replace('/', ":"))
    );
    cli.dsv(&format!("secret delete {root}"))
        .await
        .fails("dynamic secrets are linked to this secret");
    let described = cli.dsv(&format!("secret describe {path}")).await.json();
    assert!(described.get("data").is_none(), "{described}");
    let data = cli.dsv(&format!("secret read {path} -f .data")).await.json();
    let login = Login {
        user: text(&data, "/username"),
        password: text(&data, "/password"),
    };
    assert!(login.user.starts_with("cli_"), "{}", login.user);
    login
}

/// Secrets that just keep something.
async fn secrets(cli: &Cli) {
    let (path, tag) = (format!("{}/app", fresh("cli")), fresh("tag"));
    let shown = path.replace('/', ":");
    let create = |path: &str| {
        let data = r#"{"user":"a","deep":{"n":[1,true,null]}}"#;
        let attributes = format!(r#"{{"tag":"{tag}","tll":100}}"#);
        [
            "secret",
            "create",
            "--path",
            path,
            "--desc",
            "first",
            "--data",
            data,
            "--attributes",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([attributes])
        .collect::<Vec<String>>()
    };
    let create = create(&path);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let made = cli.run(&create).await.json();
    assert_eq!(
        (text(&made, "/path"), text(&made, "/version")),
        (shown.clone(), "0".into())
    );
    cli.run(&create)
        .await
        .fails(r#""message": "error creating secret, secret at path already exists""#);
    let id = text(&made, "/id");
    for way in [
        format!("secret read {path}"),
        format!("secret {shown}"),
        format!("secret read --path {path}"),
        format!("secret read --id {id}"),
    ] {
        assert_eq!(cli.dsv(&way).await.json(), made, "{way}");
    }
    let value = cli.dsv(&format!("secret read {path} -f .data.user")).await;
    assert_eq!(value.text(), "a");

    let update = format!("secret update --path {path}");
    let merged = cli.dsv(&format!(r#"{update} --data {{"user":"b"}}"#)).await.json();
    assert_eq!(merged["data"], json!({"user": "b", "deep": {"n": [1, true, null]}}));
    assert_eq!(text(&merged, "/description"), "first");
    let replaced = cli.dsv(&format!(r#"{update} --data {{"z":1}} --overwrite"#)).await;
    let replaced = replaced.json();
    assert_eq!(
        (&replaced["data"], text(&replaced, "/version")),
        (&json!({"z": 1}), "2".into())
    );
    let before = cli.dsv(&format!("secret rollback --path {path}")).await.json();
    assert_eq!(
        (&before["data"], text(&before, "/version")),
        (&merged["data"], "3".into())
    );
    let first = cli.dsv(&format!("secret rollback --path {shown} --version 0")).await;
    let first = first.json();
    assert_eq!(first["data"], made["data"]);
    let versions = cli.dsv(&format!("secret read --path {path} --version 3")).await.json();
    let versions: Vec<String> = versions["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "/version"))
        .collect();
    assert_eq!(versions, ["4", "3", "2"]);

    let found = cli.dsv(&format!("secret search {shown} --limit 5")).await.json();
    assert_eq!(
        (&found["total"], &found["limit"], text(&found, "/data/0/id")),
        (&json!(1), &json!(5), id.clone())
    );
    let field = "--search-field attributes";
    for search in [
        format!("secret search {tag} {field}.tag --search-comparison equal"),
        format!("secret search --query 100 {field}.tll --search-type number --sort asc"),
    ] {
        let found = cli.dsv(&search).await.json();
        assert!(found.to_string().contains(&id), "{search}: {found}");
    }
    let none = cli.dsv(&format!("secret search {}", fresh("none"))).await.json();
    assert_eq!((&none["data"], &none["total"]), (&json!([]), &json!(0)));

    edit(cli, &path).await;
    let gone = cli.dsv(&format!("secret delete {path}")).await.text();
    assert!(gone.contains(MARKED), "{gone}");
    cli.dsv(&format!("secret read {path}")).await.fails(MARKED);
    cli.dsv(&format!("secret delete {path}")).await.fails(MARKED);
    cli.dsv(&format!("secret restore {shown}")).await.silent();
    cli.dsv(&format!("secret read {path}")).await.json();
    cli.dsv(&format!("secret delete {path} --force")).await.silent();
    cli.dsv(&format!("secret read {path}")).await.fails(NOT_FOUND);
}

/// In an editor, as somebody at a terminal would.
async fn edit(cli: &Cli, path: &str) {
    let editor = cli.home.join("editor.sh");
    fs::write(
        &editor,
        "#!/bin/sh\nsed -i 's/\"user\": \"a\"/\"user\": \"edited\"/' \"$1\"\n",
    )
    .unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let mut at_terminal = Cli::clone(cli);
    at_terminal.set("EDITOR", editor.to_str().unwrap());
    let edited = at_terminal.dsv(&format!("secret edit --path {path}")).await;
    edited.text();
    let read = cli.dsv(&format!("secret read {path} -f .data.user")).await;
    assert_eq!(read.text(), "edited");
}

/// The home, usage, audit, and what is not served.
async fn homes_and_figures(cli: &Cli) {
    let path = format!("{}/one", fresh("home"));
    let shown = format!("users:admin:{}", path.replace('/', ":"));
    let made = cli.dsv(&format!("home create {path} --desc zero")).await.json();
    assert_eq!(text(&made, "/path"), shown);
    let updated = cli.dsv(&format!("home update {path} --desc one")).await.json();
    assert_eq!(text(&updated, "/version"), "1");
    assert_eq!(cli.dsv(&format!("home read {path}")).await.json(), updated);
    let with_owner = cli.dsv(&format!("home read users:admin/{path}")).await;
    assert_eq!(with_owner.json(), updated);
    let found = cli.dsv(&format!("home search {path}")).await.json();
    assert_eq!(
        (&found["total"], text(&found, "/data/0/path")),
        (&json!(1), shown.clone())
    );
    cli.dsv(&format!("home search {path} --search-field description"))
        .await
        .json();
    let gone = cli.dsv(&format!("home delete {path}")).await.text();
    assert!(gone.contains(MARKED), "{gone}");
    cli.dsv(&format!("home restore {path}")).await.silent();
    let back = cli.dsv(&format!("home rollback {path} --version 0")).await.json();
    assert_eq!(
        (text(&back, "/description"), text(&back, "/version")),
        ("zero".into(), "2".into())
    );
    let versions = cli.dsv(&format!("home read --path {path} --version 3")).await.json();
    assert_eq!(versions["data"].as_array().unwrap().len(), 3);
    cli.dsv(&format!("home delete {path} --force")).await.silent();

    let usage = cli
        .dsv("usage --startdate 2026-01-01 --enddate 2100-01-01")
        .await
        .json();
    assert_eq!(
        (text(&usage, "/startDate"), text(&usage, "/endDate")),
        ("2026-01-01".into(), "2100-01-01".into())
    );
    assert!(usage["totalRequestsUsed"].as_u64() > Some(0), "{usage}");
    cli.dsv("usage --startdate 2999-01-01")
        .await
        .fails("Usage start date cannot be in the future");
    let audit = cli
        .dsv("audit --startdate 2026-01-01 --path home --actions POST")
        .await
        .json();
    assert!(
        audit["data"].as_array().is_some_and(|lines| !lines.is_empty()),
        "{audit}"
    );
    let config = cli.dsv("config read").await.json();
    assert!(
        config["permissionDocument"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "{config}"
    );
    for absent in [
        "siem read --name none",
        "config auth-provider read none",
        "breakglass status",
    ] {
        cli.dsv(absent).await.fails("not served");
    }
}
