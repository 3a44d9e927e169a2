//! The documentation is held to be true: the README is run as a script from an empty cluster to a credential, the samples
//! are applied, and lists of reasons, metrics, flags and links are compared with what they are about.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod docs_support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use docs_support::text::{anchors, block, command_words, links, page, pages, table_words};
use docs_support::world::World;
use docs_support::{accounts, tutorial};
use dsv::api::conditions::Reason;
use e2e::places;
use e2e::say::say;
use serde_json::Value;

// Scripts are waited for, and the engines of the tutorial's pool are run meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_leads_from_an_empty_cluster_to_a_credential() {
    let world = World::start().await.unwrap();
    world.run("install").unwrap();
    world.run("kubeconfig").unwrap();
    let operator = world.operator("operator").await.unwrap();
    world.run("pool").unwrap();
    let engine = world.engine("engine").unwrap();
    let out = world.run("secret").unwrap();
    let uri = out.lines().last().unwrap();
    assert!(uri.starts_with("postgresql://shop_orders-app_"), "{uri}");
    world.log_in_with("orders-app").await.unwrap();
    let out = world.run("why").unwrap();
    say(format!("what the README's block `why` shows:\n{out}"));
    for seen in [
        "connected",
        "DynamicSecret shop/orders-app is ready: Issued",
        "PostgreSQL",
    ] {
        assert!(out.contains(seen), "{seen} is not in\n{out}");
    }
    samples(&world).await;
    let trial = accounts::trial(&world);
    accounts::nightly(&world);
    accounts::argo_cd(&world);
    plugin(&world).await;
    compare_live_metrics(&world).await;
    tutorial::follow(&world).await;
    accounts::trial_ended_well(&world, &trial).await;
    for process in [&engine, &operator] {
        process.check().unwrap();
    }
}

async fn samples(world: &World) {
    world
        .bash("samples", "kubectl apply --dry-run=server -f config/samples/")
        .unwrap();
    let live = "for file in config/samples/dynamicsecret-*.yaml config/samples/lease-*.yaml \
                config/samples/engine-own-key.yaml; do kubectl apply -f \"$file\"; done";
    world.bash("apply", live).unwrap();
    world
        .bash(
            "wait",
            "kubectl -n shop wait dynamicsecret --all --for=condition=Ready --timeout=60s
             kubectl -n shop wait credentiallease/orders-adhoc-asked credentiallease/orders-adhoc-job \
               --for=jsonpath='{.status.phase}'=Issued --timeout=60s",
        )
        .unwrap();
    for secret in ["orders-web-db", "orders-report-db", "orders-adhoc-job"] {
        world.log_in_with(secret).await.unwrap();
    }
}

async fn plugin(world: &World) {
    let rows: Value = world.json("kubectl dsv status -A -o json");
    let rows = rows.as_array().unwrap();
    assert!(
        rows.len() >= 4 && rows.iter().all(|row| row["ready"] == true),
        "{rows:?}"
    );
    issue(world).await;
    hold(world).await;
    stop_waiting(world).await;
    let before = world.user_of("orders-web-db");
    let out = world
        .bash("rotate", "kubectl dsv rotate orders-web -n shop --wait")
        .unwrap();
    assert!(out.contains("delivered: account shop_orders-web_"), "{out}");
    assert_ne!(world.user_of("orders-web-db"), before);
    world.log_in_with("orders-web-db").await.unwrap();
    refusals(world);
}

async fn issue(world: &World) {
    let issued = world.json("kubectl dsv issue orders-adhoc -n shop --ttl 5m -o json");
    let text = |key: &str| issued[key].as_str().unwrap().to_owned();
    world.log_in(&text("username"), &text("password")).await.unwrap();
    assert_eq!(issued["port"], world.port());
    assert_eq!(issued["databases"], serde_json::json!(["orders"]));
    let objects = world
        .bash("look", "kubectl get credentiallease,secret,dynamicsecret -A -o yaml")
        .unwrap();
    assert!(
        !objects.contains(&text("password")),
        "the password of an asker is in the cluster"
    );
    let env = world
        .bash("env", "eval \"$(kubectl dsv issue orders-adhoc -n shop -o env 2>/dev/null)\"; echo \"$PGUSER@$PGHOST:$PGPORT/$PGDATABASE $PGSSLMODE\"")
        .unwrap();
    let end = format!("@127.0.0.1:{}/orders require", world.port());
    assert!(
        env.starts_with("shop_orders-adhoc_") && env.trim().ends_with(&end),
        "{env}"
    );
}

/// Ctrl-C takes the account back.
async fn hold(world: &World) {
    let holder = world
        .service("hold", "exec kubectl-dsv issue orders-adhoc -n shop --hold -o env")
        .unwrap();
    let printed = || {
        let log = holder.log_text();
        let value = |name: &str| {
            let line = log
                .lines()
                .find_map(|line| line.strip_prefix(&format!("export {name}=")))?;
            Some(line.trim_matches('\'').to_owned())
        };
        log.contains("Ctrl-C")
            .then(|| (value("PGUSER").unwrap(), value("PGPASSWORD").unwrap()))
    };
    let (user, password) = world.eventually("the credential is shown", printed).await.unwrap();
    world.log_in(&user, &password).await.unwrap();
    holder.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    world
        .eventually("the plugin ends", || (!holder.is_running()).then_some(()))
        .await
        .unwrap();
    world.until_role_is_gone(&user).await.unwrap();
    let out = world.bash("ending", "kubectl dsv why orders-adhoc -n shop").unwrap();
    say(format!("after Ctrl-C:\n{out}"));
    assert!(out.contains(" Ending "), "{out}");
}

/// Ctrl-C while nothing is issued yet leaves no lease behind.
async fn stop_waiting(world: &World) {
    let suspend = |value: bool| {
        let patch = format!(r#"{{"spec": {{"suspend": {value}}}}}"#);
        let script = format!("kubectl -n shop patch dynamicsecret orders-adhoc --type=merge -p '{patch}'");
        world.bash("suspend", &script).unwrap()
    };
    suspend(true);
    let waiter = world
        .service("waiter", "exec kubectl-dsv issue orders-adhoc -n shop")
        .unwrap();
    let told = || waiter.log_text().contains("waiting: Suspended").then_some(());
    world
        .eventually("the plugin says what it waits for", told)
        .await
        .unwrap();
    waiter.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    let stopped = || {
        waiter
            .log_text()
            .contains("stopped waiting; nothing was issued")
            .then_some(())
    };
    world.eventually("the plugin ends", stopped).await.unwrap();
    suspend(false);
}

fn refusals(world: &World) {
    let refused = |script: &str| world.bash("refused", &format!("{script} && exit 1 || true")).unwrap();
    let out = refused("kubectl dsv issue orders-app -n shop");
    assert!(out.contains("is in mode Once"), "{out}");
    let out = refused("kubectl dsv rotate orders-adhoc -n shop");
    assert!(out.contains("kubectl dsv issue orders-adhoc"), "{out}");
    let out = refused("kubectl dsv why nothing -n shop");
    assert!(out.contains("DynamicSecret shop/nothing does not exist"), "{out}");
    let patch = r#"{"spec": {"userPrefix": "other_"}}"#;
    let script = format!(
        "kubectl -n shop patch dynamicsecret orders-adhoc --type=merge -p '{patch}'; kubectl dsv issue orders-adhoc -n shop"
    );
    let out = refused(&script);
    assert!(
        out.contains("AccessDenied") && out.contains("userPrefix \"other_\""),
        "{out}"
    );
    // One that ended in its first minute stays on the books until its deadline has proven that nothing comes any more.
    let leases = world.json("kubectl -n shop get credentiallease -o json");
    let open: Vec<&str> = leases["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|lease| lease["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|lease| lease["metadata"]["name"].as_str())
        .filter(|name| name.starts_with("orders-adhoc-"))
        .collect();
    assert_eq!(open.len(), 4, "two samples and two that were issued: {open:?}");
}

async fn compare_live_metrics(world: &World) {
    let documented = table_words(&page("docs/metrics.md"), "dsv_");
    let connected = world.operator_metrics().await.unwrap();
    let accepted = "dsv_channel_handshakes_total{result=\"accepted\"} ";
    let accepted = connected.lines().find_map(|line| line.strip_prefix(accepted));
    assert!(accepted.is_some_and(|count| count != "0"), "{connected}");
    for text in [
        world.operator_metrics().await.unwrap(),
        world.engine_metrics().await.unwrap(),
    ] {
        let shown = docs_support::text::metric_names(&text);
        assert!(!shown.is_empty());
        let missing: Vec<_> = shown.difference(&documented).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    }
}

#[test]
fn the_readme_is_short_and_every_block_in_it_is_run() {
    let readme = page("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 120, "README.md has {lines} lines");
    let blocks = readme.matches("```bash").count();
    let named = ["install", "kubeconfig", "operator", "pool", "engine", "secret", "why"];
    assert_eq!(
        blocks,
        named.len(),
        "a command block of README.md is not run by this test"
    );
    for name in named {
        assert!(!block(&readme, name).unwrap().is_empty());
    }
}

#[test]
fn every_reason_is_explained_exactly_once() {
    let reasons = page("docs/reasons.md");
    for reason in Reason::EVERY {
        let row = format!("| `{}` |", reason.as_str());
        let rows: Vec<&str> = reasons.lines().filter(|line| line.starts_with(&row)).collect();
        assert_eq!(rows.len(), 1, "docs/reasons.md has these rows for {row}: {rows:?}");
        let cells: Vec<&str> = rows[0].trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()),
            "a row has reason, meaning, where to look, and next step: {cells:?}"
        );
    }
    let known: BTreeSet<&str> = Reason::EVERY.iter().map(|reason| reason.as_str()).collect();
    for line in reasons.lines().filter_map(|line| line.strip_prefix("| `")) {
        let word = line.split('`').next().unwrap();
        assert!(
            known.contains(word),
            "docs/reasons.md explains {word}, which no program says"
        );
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for (name, text) in pages() {
        let here = places::workspace().join(&name);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                here.clone()
            } else {
                here.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{name} links to {link}, which does not exist");
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(
                    there.contains(anchor),
                    "{name} links to {link}, which has no such heading: {there:?}"
                );
            }
        }
    }
}

#[test]
fn every_phase_of_a_lease_is_explained_exactly_once() {
    let (fields, reasons) = (page("docs/fields.md"), page("docs/reasons.md"));
    let row = |line: &&str| line.starts_with("| `status.phase` |");
    let phases = fields.lines().find(row).unwrap().split(" | ").nth(2).unwrap();
    let phases: Vec<&str> = phases.split('`').skip(1).step_by(2).collect();
    assert!(phases.len() > 4, "{phases:?}");
    let rows: Vec<Vec<&str>> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| phase `"))
        .map(|line| line.trim_end_matches(" |").split(" | ").collect())
        .collect();
    let explained: Vec<&str> = rows.iter().map(|cells| cells[0].trim_end_matches('`')).collect();
    assert_eq!(explained, phases);
    for cells in rows {
        assert!(
            cells.len() == 4 && cells.iter().all(|cell| !cell.trim().is_empty()),
            "a row has phase, meaning, where to look, and next step: {cells:?}"
        );
    }
}

/// A guarantee is worth the test that shows it: one that was renamed or lost must not stay in the page.
#[test]
fn every_test_that_the_guarantees_name_exists() {
    let text = page("docs/guarantees.md");
    let named: BTreeSet<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.matches('_').count() > 3
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        })
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let tests = tests_below(&places::workspace().join("tests")) + &tests_below(&places::workspace().join("e2e/tests"));
    let lost: Vec<&&str> = named
        .iter()
        .filter(|name| !tests.contains(&format!("fn {name}")))
        .collect();
    assert!(
        lost.is_empty(),
        "docs/guarantees.md names tests that do not exist: {lost:?}"
    );
}

/// The table of what DSV has is whole, and nothing in it is claimed without a test.
#[test]
fn every_row_of_the_compatibility_table_that_says_yes_names_a_test_that_exists() {
    let page = page("docs/compatibility.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells[0].len() > 1 && cells[0][1..].parse::<u8>().is_ok())
        .collect();
    let numbers = |letter: char, last: u8| (1..=last).map(move |number| format!("{letter}{number}"));
    let all = [('E', 28), ('D', 22), ('A', 13), ('S', 18), ('K', 3)].into_iter();
    let expected: Vec<String> = all.flat_map(|(letter, last)| numbers(letter, last)).collect();
    let found: Vec<&str> = rows.iter().map(|cells| cells[0]).collect();
    assert_eq!(found, expected);
    let workspace = places::workspace();
    let tests: String = ["tests", "e2e/tests", "src"]
        .map(|folder| tests_below(&workspace.join(folder)))
        .concat();
    for cells in rows {
        let (row, state, test) = (cells[0], cells[2], cells[3].trim_matches('`'));
        match state {
            "yes" | "partly" => assert!(
                !test.is_empty() && tests.contains(&format!("fn {test}(")),
                "row {row} says {state}, but there is no test {test:?}"
            ),
            "no" => assert!(test.is_empty(), "row {row} says no and names a test"),
            other => panic!("row {row} says {other:?}; say yes, partly or no"),
        }
    }
}

/// All Rust text below a folder.
fn tests_below(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&tests_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn the_reference_lists_every_flag_and_variable() {
    let reference = page("docs/reference.md");
    let mut known = BTreeSet::from(["--version".to_owned()]);
    for (program, args) in [
        ("dsv-operator", &["run", "--help"][..]),
        ("dsv-operator", &["crd", "--help"]),
        ("dsv-operator", &["rbac", "--help"]),
        ("dsv-operator", &["chart", "--help"]),
        ("dsv-operator", &["reference", "--help"]),
        ("dsv-operator", &["uninstall", "--help"]),
        ("dsv-operator", &["trial", "--help"]),
        ("dsv-engine", &["run", "--help"]),
        ("dsv-engine", &["register", "--help"]),
        ("dsv-engine", &["keygen", "--help"]),
        ("dsv-engine", &["service", "install", "--help"]),
        ("kubectl-dsv", &["status", "--help"]),
        ("kubectl-dsv", &["why", "--help"]),
        ("kubectl-dsv", &["get", "--help"]),
        ("kubectl-dsv", &["revoke", "--help"]),
        ("kubectl-dsv", &["who", "--help"]),
        ("kubectl-dsv", &["orphans", "--help"]),
        ("kubectl-dsv", &["preflight", "--help"]),
        ("kubectl-dsv", &["plan", "--help"]),
        ("kubectl-dsv", &["rotate", "--help"]),
        ("kubectl-dsv", &["issue", "--help"]),
        ("kubectl-dsv", &["exec", "--help"]),
        ("kubectl-dsv", &["psql", "--help"]),
        ("kubectl-dsv", &["engine", "ping", "--help"]),
        ("kubectl-dsv", &["engine", "create", "--help"]),
        ("kubectl-dsv", &["engine", "register", "--help"]),
        ("kubectl-dsv", &["completion", "--help"]),
        ("kubectl-dsv", &["pool", "list", "--help"]),
        ("kubectl-dsv", &["audit", "verify", "--help"]),
    ] {
        let output = Command::new(places::own_program(program).unwrap())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program} {args:?}");
        known.extend(command_words(&String::from_utf8(output.stdout).unwrap()));
    }
    let written = command_words(&reference);
    let missing: Vec<_> = known
        .iter()
        .filter(|word| !["--help", "--version"].contains(&word.as_str()) && !written.contains(*word))
        .collect();
    assert!(missing.is_empty(), "docs/reference.md lacks {missing:?}");
    for word in written.iter().filter(|word| word.starts_with("--")) {
        assert!(
            known.contains(word),
            "docs/reference.md lists {word}, which no program knows"
        );
    }
}
