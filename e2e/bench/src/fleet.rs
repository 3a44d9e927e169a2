//! Many engines at one operator: what each costs it, and how fast all are back when it goes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dsv::channel::Timing;
use dsv::channel::frames::{Done, Outcome, Task};
use dsv::channel::link::{Link, LinkOptions, LinkStatus, OuterTrust, Proxies, Tasks};
use dsv::keys::{EngineKey, SecretText};
use e2e::objects::{Objects, text};
use e2e::sample;
use e2e::say::say;
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::figures::{Bar, Row};
use crate::machine::{memory_mib, processor_time};

const LIMIT: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(20);
/// After all are connected their status is written.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(20);

/// Does nothing, and says so: what is measured is the connection.
struct Idle;

impl Tasks for Idle {
    async fn run(&self, task: Task, _: Duration) -> Outcome {
        match task {
            // Otherwise the operator tells it again and again.
            Task::Guard { .. } | Task::Forget { .. } => Outcome::Done {
                done: Done::Noted,
                clock: None,
            },
            _ => Outcome::Unsupported,
        }
    }
}

/// An engine's end of the channel in this process: the product's own, without a program around it.
struct Remote {
    status: watch::Receiver<LinkStatus>,
    running: JoinHandle<()>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// On a stack with two operators.
pub async fn measure(stack: &Stack, engines: usize) -> Result<Vec<Row>> {
    let objects = Objects::new(stack.client().await?);
    let namespace = stack.namespace("fleet", &[])?;
    objects.create(&sample::pool(&namespace, None)).await?;
    let registrations = register(stack, &objects, &namespace, engines).await?;
    tokio::time::sleep(SETTLE).await;
    let leader = stack.leader().await?;
    let pid = leader.pid().context("the leader does not run")?;
    let before = memory_mib(pid)?;
    let fleet: Vec<Remote> = registrations.iter().map(connect).collect::<Result<_>>()?;
    until(&fleet, |status| status.connected.is_some()).await?;
    say(format!("{engines} engines are connected"));
    tokio::time::sleep(SETTLE).await;
    let after = memory_mib(pid)?;
    let used = processor_time(pid)?;
    tokio::time::sleep(IDLE).await;
    let idle = processor_time(pid)?.saturating_sub(used);
    leader.stop();
    let back = until(&fleet, |status| status.connected.is_some() && status.sessions > 1).await?;
    let each = (after - before) * 1024.0 / f64::from(u32::try_from(engines)?);
    let what = |what: &str| format!("{engines} engines on one operator: {what}");
    Ok(vec![
        Row::new(what("memory of a connection"), "KiB", each)
            .bar(Bar::Counted(24.0))
            .note(format!("the operator grew from {before:.1} to {after:.1} MiB")),
        Row::new(
            what("processor while idle"),
            "% of a core",
            idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0,
        )
        .bar(Bar::AtMost(2.0)),
        Row::new(what("all back after a failover"), "s", back.as_secs_f64()).bar(Bar::AtMost(10.0)),
    ])
}

/// Writes the Engines, and reads the Secrets that the operator makes for them.
async fn register(stack: &Stack, objects: &Objects, namespace: &str, engines: usize) -> Result<Vec<Value>> {
    let engine = |number: usize| {
        json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "Engine",
            "metadata": {"name": format!("remote-{number}"), "namespace": namespace},
            "spec": {"pool": sample::ORDERS},
        })
    };
    for number in 0..engines {
        objects.create(&engine(number)).await?;
    }
    let registered = || async {
        let mut all = objects.list("Secret", namespace).await?;
        all.retain(|secret| text(secret, "/metadata/name").ends_with("-registration"));
        ensure!(all.len() == engines, "{} are registered", all.len());
        Ok(Some(all))
    };
    stack
        .eventually("all engines have their registration", LIMIT, registered)
        .await
}

fn connect(registration: &Value) -> Result<Remote> {
    let value = |key: &str| {
        let encoded = text(registration, &format!("/data/{key}"));
        let bytes = data_encoding::BASE64.decode(encoded.as_bytes())?;
        anyhow::Ok(String::from_utf8(bytes)?)
    };
    let endpoints = value("DSV_ENDPOINT")?;
    let endpoints = endpoints.split(',').map(str::parse);
    let options = LinkOptions {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        name: value("ENGINE_NAME")?,
        key: EngineKey::parse(&SecretText::new(value("DSV_PRIVATE_KEY")?))?,
        trust: OuterTrust::new(None, false)?,
        proxies: Proxies::none(),
        version: "bench".to_owned(),
        timing: Timing::default(),
    };
    let link = Link::new(options, Idle);
    Ok(Remote {
        status: link.status(),
        running: tokio::spawn(link.run(CancellationToken::new())),
    })
}

/// How long until all are as wished.
async fn until(fleet: &[Remote], wished: impl Fn(&LinkStatus) -> bool) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let missing = fleet.iter().filter(|remote| !wished(&remote.status.borrow())).count();
        if missing == 0 {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > LIMIT {
            bail!("{missing} engines are still missing after {LIMIT:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}
