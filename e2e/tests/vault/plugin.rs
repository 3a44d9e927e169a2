//! The commands of `kubectl dsv` that belong to what the API made: programs with an account, pings, pools, the audit file.

use std::fs;
use std::process::{Command, Output};

use e2e::objects::text;
use e2e::places;
use serde_json::{Value, json};

use crate::world::{TENANT, World, world};

async fn plugin(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(places::own_program("kubectl-dsv").unwrap());
    command
        .args(["-n", TENANT])
        .args(args)
        .env("KUBECONFIG", world.stack.kubeconfig());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_an_account_as_long_as_it_runs() {
    let world = world().await;
    let (pool, engine) = world.pool_with_engine().await;
    let path = world.dynamic(&world.base().await, &pool, &json!({})).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let script = "echo \"$PGUSER\"; test -n \"$PGPASSWORD\" && test \"$PGDATABASE\" = orders; exit 7";
    let output = plugin(world, &["exec", &id, "--ttl", "10m", "--", "sh", "-c", script]).await;
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let user = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(!user.is_empty());
    let administrator = world.stack.postgres().connect("postgres").await.unwrap();
    let gone = || async {
        let query = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        Ok(administrator.query(query, &[&user]).await?.is_empty().then_some(()))
    };
    let limit = std::time::Duration::from_mins(1);
    world
        .stack
        .eventually("the account went with the program", limit, gone)
        .await
        .unwrap();

    let output = plugin(world, &["issue", &id, "--ttl", "10m", "-o", "uri"]).await;
    let uri = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        uri.starts_with("postgresql://") && uri.trim().ends_with("/orders?sslmode=require"),
        "{}",
        said(&output)
    );
    let (client, connection) = tokio_postgres_uri(uri.trim()).await;
    assert_eq!(client.query("SELECT * FROM public.orders", &[]).await.unwrap().len(), 3);
    connection.abort();

    // Made without the API: by the operator, and with a key that is made here.
    let (one, two) = (crate::world::fresh("made"), crate::world::fresh("own"));
    let pool_object = text(&world.get(&format!("pools/{pool}")).await.is(200), "/name");
    let output = plugin(world, &["engine", "create", &one, "--pool", &pool_object]).await;
    assert!(
        output.status.success() && said(&output).contains(&format!("{TENANT}/{one}-registration")),
        "{}",
        said(&output)
    );
    let output = plugin(world, &["engine", "register", &two, "--pool", &pool_object]).await;
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        output.status.success() && shown.contains(&format!("ENGINE_NAME={two}\nDSV_PRIVATE_KEY=dsvk1.")),
        "{}",
        said(&output)
    );
    let read = world.get(&format!("engines/{two}")).await.is(200);
    assert!(!text(&read, "/publicKey").is_empty() && !shown.contains(&text(&read, "/publicKey")));
    let script = plugin(world, &["completion", "bash"]).await;
    assert!(
        script.status.success() && said(&script).contains("kubectl-dsv"),
        "{}",
        said(&script)
    );

    let output = plugin(world, &["engine", "ping", engine.name()]).await;
    assert!(
        output.status.success() && said(&output).contains("answered in"),
        "{}",
        said(&output)
    );
    let output = plugin(world, &["pool", "list", "-o", "json"]).await;
    let pools: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = pools.as_array().unwrap().iter().find(|one| one["name"] == pool);
    assert_eq!(found.unwrap()["connectedEngines"], 1, "{pools}");
    let output = plugin(world, &["pool", "list"]).await;
    assert!(said(&output).contains(&pool), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_an_account_is_can_be_asked_and_all_of_them_taken_back_at_once() {
    let world = world().await;
    let (pool, _engine) = world.pool_with_engine().await;
    let path = world.dynamic(&world.base().await, &pool, &json!({})).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let mut users = Vec::new();
    for _ in 0..2 {
        let output = plugin(world, &["read", &id, "--ttl", "10m", "-o", "json"]).await;
        let credential: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        users.push(text(&credential, "/username"));
    }
    let output = plugin(world, &["get", &id, "-o", "json"]).await;
    let leases: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut shown: Vec<String> = leases
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "/username"))
        .collect();
    shown.sort();
    users.sort();
    assert_eq!(shown, users, "{leases}");
    let output = plugin(world, &["get", &id]).await;
    assert!(
        said(&output).contains(&users[0]) && said(&output).contains("Issued"),
        "{}",
        said(&output)
    );

    let output = plugin(world, &["who", &users[0], "-o", "json"]).await;
    let whose: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(
        (text(&whose, "/namespace"), text(&whose, "/dynamicSecret")),
        (TENANT.to_owned(), id.clone())
    );
    let output = plugin(world, &["who", "1"]).await;
    assert!(
        !output.status.success() && said(&output).contains("--via"),
        "{}",
        said(&output)
    );
    whose_process(world, &id).await;
    let output = plugin(world, &["who", "nobody-has-this-name"]).await;
    assert!(
        !output.status.success() && said(&output).contains("no lease has the account"),
        "{}",
        said(&output)
    );
    let output = plugin(world, &["preflight", &id]).await;
    assert!(
        output.status.success() && said(&output).contains("): ready"),
        "{}",
        said(&output)
    );
    assert!(
        output.stdout.is_empty(),
        "nothing is missing, so there is no SQL to run"
    );
    let output = plugin(world, &["plan", &id]).await;
    let plan = said(&output);
    for part in ["--   SELECT on public.orders", "CREATE ROLE", "SCRAM-SHA-256$…"] {
        assert!(
            output.status.success() && plan.contains(part),
            "{part} is not in {plan}"
        );
    }
    let output = plugin(world, &["plan", &id, "-o", "yaml"]).await;
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(plan.contains("what: SELECT") && plan.contains("group: dsvg_"), "{plan}");
    let output = plugin(world, &["plan", &id, "-o", "json"]).await;
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    crate::plan::is_so(world, &plan, &users[0]).await;
    let output = plugin(world, &["orphans", "-o", "json"]).await;
    let pools: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        pools.as_array().unwrap().iter().any(|one| one["pool"] == pool),
        "{pools}"
    );

    let output = plugin(world, &["revoke", &id]).await;
    assert!(
        !output.status.success() && said(&output).contains("--yes"),
        "{}",
        said(&output)
    );
    let output = plugin(world, &["revoke", "--pool", &pool, "--yes"]).await;
    assert!(
        output.status.success() && said(&output).contains("no account is left"),
        "{}",
        said(&output)
    );
    let administrator = world.stack.postgres().connect("postgres").await.unwrap();
    let query = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)";
    assert!(administrator.query(query, &[&users]).await.unwrap().is_empty());
    let output = plugin(world, &["read", &id, "--timeout", "3"]).await;
    assert!(
        !output.status.success() && said(&output).contains("Suspended"),
        "{}",
        said(&output)
    );
}

/// The test's own server takes any encryption.
async fn tokio_postgres_uri(uri: &str) -> (tokio_postgres::Client, tokio::task::JoinHandle<()>) {
    let config: tokio_postgres::Config = uri.replace("sslmode=require", "sslmode=disable").parse().unwrap();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(async move {
        let _ = connection.await;
    });
    (client, driving)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_a_line_of_a_chain_without_values_and_a_touched_line_shows() {
    let world = world().await;
    let value = crate::world::fresh("very-secret-value");
    let path = format!("secrets/audited/{}", crate::world::fresh("a"));
    world
        .call(&format!("POST {path}"), &json!({"data": {"v": value}}))
        .await
        .is(201);
    world.get(&format!("{path}?edit=false")).await.is(200);
    world.at(0, "", &format!("GET {path}"), &Value::Null).await.is(401);
    let file = world.audit_file(0);
    let stream = fs::read_to_string(&file).unwrap();
    for (action, status) in [("POST", 201), ("GET", 200), ("GET", 401)] {
        let line = stream.lines().find(|line| {
            line.contains(&path)
                && line.contains(&format!("\"{action}\""))
                && line.contains(&format!("\"status\":{status}"))
        });
        assert!(line.is_some(), "no line of {action} {path} with {status}");
    }
    assert!(!stream.contains(&value) && !stream.contains(&world.admin) && !stream.contains(&world.password));
    let shown = world.get(&format!("audit?path={path}&limit=2")).await.is(200);
    assert_eq!(
        (&shown["length"], text(&shown, "/data/0/principal")),
        (&json!(2), String::new())
    );
    let usage = world.get("usage?startDate=2020-01-01&endDate=2100-01-01").await.is(200);
    assert!(usage["totalRequestsUsed"].as_u64().unwrap() > 2 && text(&usage, "/startDate") == "2020-01-01");

    let copy = file.with_extension("copy");
    fs::write(&copy, &stream).unwrap();
    let whole = plugin(world, &["audit", "verify", copy.to_str().unwrap()]).await;
    assert!(
        whole.status.success() && said(&whole).contains("all whole and in order"),
        "{}",
        said(&whole)
    );
    fs::write(&copy, stream.replacen("\"status\":201", "\"status\":204", 1)).unwrap();
    let touched = plugin(world, &["audit", "verify", copy.to_str().unwrap()]).await;
    assert!(
        !touched.status.success() && said(&touched).contains("was changed"),
        "{}",
        said(&touched)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_custom_resources_are_lines_of_the_chain_of_the_leader() {
    let world = world().await;
    let (pool, _engine) = world.pool_with_engine().await;
    let path = world.dynamic(&world.base().await, &pool, &json!({})).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let output = plugin(world, &["issue", &id, "--ttl", "30s", "-o", "json"]).await;
    let credential: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let (user, password) = (text(&credential, "/username"), text(&credential, "/password"));
    let lines = || async {
        let mut found = Vec::new();
        for replica in 0..2 {
            let stream = fs::read_to_string(world.audit_file(replica))?;
            dsv::vault::verify(&stream)?;
            anyhow::ensure!(!stream.contains(&password), "a password is in the audit stream");
            let lines = stream
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found.extend(lines.filter(|line| text(line, "/account") == user));
        }
        // A line is written before the books are: who met another writer there, or died in between, writes it again.
        found.dedup_by_key(|line| text(line, "/action"));
        Ok((found.len() == 2).then_some(found))
    };
    let limit = std::time::Duration::from_mins(2);
    let lines = world
        .stack
        .eventually(
            "the account is issued, and taken back at its end, in the stream",
            limit,
            lines,
        )
        .await
        .unwrap();
    for (line, action) in lines.iter().zip(["ISSUE", "REVOKE"]) {
        assert_eq!(
            (
                text(line, "/action"),
                text(line, "/dynamicSecret"),
                text(line, "/tenant")
            ),
            (action.to_owned(), id.clone(), TENANT.to_owned())
        );
    }
}

#[tokio::test]
async fn a_write_is_done_and_noted_though_its_caller_hangs_up() {
    use tokio::io::AsyncWriteExt;
    let world = world().await;
    let mut names = Vec::new();
    // Some hang up before anything has begun, some in the middle, some after it.
    for wait in (0..16).map(|number| std::time::Duration::from_millis(8 * number)) {
        let name = crate::world::fresh("hung-up");
        let body = json!({"data": {"v": 1}}).to_string();
        let mut stream = world.connect(0).await.unwrap();
        let request = format!(
            "POST /v1/secrets/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            world.admin,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(wait).await;
        drop(stream);
        names.push(name);
    }
    // Whatever was begun is there and has its line; what was not has neither.
    let settled = || async {
        let stream = fs::read_to_string(world.audit_file(0))?;
        let objects = world.objects().await.list("Secret", TENANT).await?;
        let mut noted = 0;
        for name in &names {
            let kept = objects
                .iter()
                .any(|one| one["metadata"]["annotations"]["dsv.dev/path"] == **name);
            let line = stream.lines().find(|line| line.contains(&format!("secrets/{name}")));
            anyhow::ensure!(kept == line.is_some(), "{name}: kept {kept}, line {line:?}");
            if let Some(line) = line {
                anyhow::ensure!(line.contains("\"status\":201"), "{line}");
                noted += 1;
            }
        }
        Ok((noted > 0).then_some(()))
    };
    let limit = std::time::Duration::from_mins(1);
    world
        .stack
        .eventually("every write has its line", limit, settled)
        .await
        .unwrap();
}

/// Whose session it is, by the number of its process: the server is asked with psql, where this machine has one.
async fn whose_process(world: &World, id: &str) {
    if e2e::cluster::find_on_path("psql").is_none() {
        e2e::say::say("there is no psql here, so no process is asked for");
        return;
    }
    let output = plugin(world, &["issue", id, "--ttl", "10m", "-o", "uri"]).await;
    let uri = String::from_utf8(output.stdout.clone()).unwrap();
    let (client, connection) = tokio_postgres_uri(uri.trim()).await;
    let process: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let process = process.to_string();
    let output = plugin(world, &["who", &process, "--via", id, "-o", "json"]).await;
    let whose: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert!(uri.contains(&text(&whose, "/user")), "{whose}");
    assert_eq!(text(&whose, "/dynamicSecret"), id);
    connection.abort();
}
