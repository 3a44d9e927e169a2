//! `dsv-engine register`, and an engine that registers itself with the token of a user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::objects::text;
use e2e::places;
use e2e::process::Spec;
use e2e::service::Service;
use serde_json::{Value, json};

use crate::world::{fresh, world};

const READY: &str = "engine is ready and waiting for messages";

/// A folder that stands for a home, with the API's authority in it.
async fn home(name: &str) -> (PathBuf, PathBuf) {
    let world = world().await;
    let home = world.stack.run().subfolder(name).unwrap();
    let authority = home.join("ca.pem");
    fs::write(&authority, &world.authority).unwrap();
    (home, authority)
}

/// `dsv-engine` with nothing but these variables.
async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(places::own_program("dsv-engine").unwrap());
    command.args(args).env_clear().envs(env.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn value<'a>(out: &'a str, key: &str) -> &'a str {
    let line = out.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("{key} is not in {out}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_registered_with_a_token_and_started_with_what_was_stored() {
    let world = world().await;
    let (home, authority) = home("register").await;
    let (name, url) = (fresh("engine"), format!("1:{}", world.port()));
    let env = [("HOME", home.to_str().unwrap()), ("DSV_TOKEN", world.admin.as_str())];
    let register = ["register", "--tenant", "127.0.0", "--url", &url, "--engine-name", &name];
    let untrusted = run(&register, &env).await;
    let said = String::from_utf8_lossy(&untrusted.stderr).into_owned();
    assert!(!untrusted.status.success() && said.contains("--ca-file"), "{said}");
    assert!(!said.contains(&world.admin), "the token is shown");

    let ca = ["--ca-file", authority.to_str().unwrap()];
    let output = run(&[&register[..], &ca].concat(), &env).await;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(value(&out, "engine"), name);
    assert!(
        value(&out, "pool").starts_with("pool-"),
        "without a pool one is made: {out}"
    );
    let key = value(&out, "privateKey").to_owned();
    let file = home.join(".dsv-engine-config.yml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let read = world.get(&format!("engines/{name}")).await.is(200);
    assert_eq!(text(&read, "/poolName"), value(&out, "pool"));
    assert!(!read.to_string().contains(&key));

    // Again: the two ways out, and a code that nothing restarts for.
    let again = run(&[&register[..], &ca].concat(), &env).await;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(78), "{said}");
    assert!(
        said.contains("DSV_PRIVATE_KEY") && said.contains("ENGINE_NAME"),
        "{said}"
    );

    let spec = Spec::new(&name, places::own_program("dsv-engine").unwrap(), &home).args(["run"]);
    let service = Service::new(spec.env("HOME", home.to_str().unwrap()));
    service.launch().unwrap();
    wait_ready(&service).await;
    let answer = world
        .call(&format!("POST engines/{name}/ping"), &Value::Null)
        .await
        .is(200);
    assert!(text(&answer, "/message").contains("answered in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_registers_itself_and_a_restart_uses_what_it_stored() {
    let world = world().await;
    let (home, _) = home("container").await;
    let (name, pool) = (fresh("Engine"), fresh("Pool"));
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    let mut spec = Spec::new(&name, places::own_program("dsv-engine").unwrap(), &home).args(["run"]);
    for (key, value) in [
        ("HOME", home.to_str().unwrap().to_owned()),
        ("ENGINE_NAME", name.clone()),
        ("DSV_POOL", pool),
        ("DSV_TENANT", "127.0.0".to_owned()),
        ("DSV_URL", format!("1:{}", world.port())),
        ("DSV_TOKEN", world.admin.clone()),
        ("DSV_CA_CERT", world.authority.clone()),
        ("DSV_VERBOSITY", "info".to_owned()),
    ] {
        spec = spec.env(key, value);
    }
    let service = Service::new(spec);
    service.launch().unwrap();
    wait_ready(&service).await;
    let log = service.log_text();
    let key = value(&log, "privateKey").to_owned();
    assert!(
        key.starts_with("dsvk1.") && log.matches(&key).count() == 1,
        "it is shown once"
    );
    assert!(!log.contains(&world.admin), "the token is in the log");
    world
        .call(&format!("POST engines/{name}/ping"), &Value::Null)
        .await
        .is(200);

    service.kill9();
    service.launch().unwrap();
    let twice = || async { Ok((service.log_text().matches(READY).count() == 2).then_some(())) };
    let limit = Duration::from_mins(1);
    world
        .stack
        .eventually("the engine is back", limit, twice)
        .await
        .unwrap();
    assert_eq!(service.log_text().matches(&key).count(), 1, "it registered again");
}

async fn wait_ready(service: &Service) {
    let ready = || async {
        service.check()?;
        Ok(service.log_text().contains(READY).then_some(()))
    };
    let stack = &world().await.stack;
    stack
        .eventually("the engine is ready", Duration::from_mins(1), ready)
        .await
        .unwrap();
}
