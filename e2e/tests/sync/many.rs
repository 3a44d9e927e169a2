//! Many syncs to one tenant: what a round of them costs the tenant and the operator. With `SYNCS=1000` it is a measurement,
//! with the few of a test run it holds what is counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::objects::text;
use e2e::say::say;
use serde_json::{Value, json};

use crate::setup::{Setup, peace, says};

/// Of so many syncs one has a source that changes.
const ONE_IN: usize = 10;
/// For all of them, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_mins(10);

#[tokio::test]
async fn of_many_syncs_only_those_whose_source_changed_are_pushed() {
    let many: usize = std::env::var("SYNCS").map_or(40, |count| count.parse().unwrap());
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    setup.secret("changing", &json!({"password": "first"}));
    // A round is as long as it takes to look at everybody once: of a thousand no shorter than a minute.
    let interval = (many / 15).max(1);
    setup.tenant("tenant", "login", &json!({"syncInterval": interval}));
    let syncs: Vec<Value> = (0..many).map(|number| sync(&setup, number)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": syncs});
    let begun = Instant::now();
    setup.world.stack.apply(&list).unwrap();
    all(&setup, "all are pushed", |sync| says(sync) == "Synced").await;
    say(format!(
        "{many} syncs: all pushed for the first time after {:.1?}",
        begun.elapsed()
    ));
    let first = asked(&setup, 0);
    assert_eq!(first.writes, many, "one write each");

    let begun = Instant::now();
    setup.secret("changing", &json!({"password": "second"}));
    all(&setup, "what changed is pushed", |sync| {
        !is_changing(sync) || text(sync, "/status/destinationVersion") == "1"
    })
    .await;
    say(format!("  a tenth changed: pushed after {:.1?}", begun.elapsed()));
    let now = jiff::Timestamp::now().to_string();
    all(&setup, "everybody was looked at once more", |sync| {
        text(sync, "/status/lastCheck").as_str() > now.as_str()
    })
    .await;
    let round = asked(&setup, first.lines);
    say(format!(
        "  from the change until everybody was looked at: {:.1?} of an interval of {interval} s, {} requests to the tenant, \
         {} of them writes; the operator, which is the tenant too, holds {} MiB",
        begun.elapsed(),
        round.lines - first.lines,
        round.writes,
        memory(&setup) / 1024,
    ));
    assert_eq!(
        round.writes,
        many.div_ceil(ONE_IN),
        "one write for each source that changed"
    );
}

fn sync(setup: &Setup, number: usize) -> Value {
    let source = if number.is_multiple_of(ONE_IN) {
        "changing"
    } else {
        "source"
    };
    let name = format!("{source}-{number:04}");
    json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "SecretSync",
        "metadata": {"name": name, "namespace": setup.namespace},
        "spec": {"source": {"name": source}, "tenant": "tenant", "path": [setup.root, name]},
    })
}

fn is_changing(sync: &Value) -> bool {
    text(sync, "/spec/source/name") == "changing"
}

/// Waits until all syncs are so; one list a look, however many there are.
async fn all(setup: &Setup, what: &str, is_so: impl Fn(&Value) -> bool) {
    let look = || async {
        let found = setup.objects.list("SecretSync", &setup.namespace).await?;
        let missing = found.iter().filter(|sync| !is_so(sync)).count();
        ensure!(missing == 0, "{missing} of {} are not", found.len());
        Ok(Some(()))
    };
    let done: Result<()> = setup.world.stack.eventually(what, PATIENCE, look).await;
    done.unwrap();
}

/// What the syncs asked of the tenant, in its own words.
struct Asked {
    /// Lines that were looked at, those before among them.
    lines: usize,
    writes: usize,
}

fn asked(setup: &Setup, after: usize) -> Asked {
    let stream = std::fs::read_to_string(setup.world.audit_file(0)).unwrap();
    let here = format!("secrets/{}", setup.root);
    let of_ours: Vec<Value> = stream
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| text(line, "/path").starts_with(&here))
        .collect();
    let is_write = |line: &&Value| ["POST", "PUT"].contains(&text(line, "/action").as_str());
    Asked {
        lines: of_ours.len(),
        writes: of_ours.iter().skip(after).filter(is_write).count(),
    }
}

/// KiB that the operator holds.
fn memory(setup: &Setup) -> u64 {
    let pid = setup.world.stack.operators()[0].pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
