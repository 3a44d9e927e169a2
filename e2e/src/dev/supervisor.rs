//! The process behind `dsv-dev up`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::setsid;
use tokio::signal::unix::{SignalKind, signal};

use super::{READY, Row, api_file, env_file, folder, pid_file, status_file};
use crate::certificates::write_private;
use crate::health;
use crate::install::NAMESPACE;
use crate::places;
use crate::postgres::{Login, Major};
use crate::run_dir::RunDir;
use crate::sample;
use crate::say::{self, say};
use crate::stack::{Shape, Stack};

const REPLICAS: u32 = 2;
const ENGINES_LIMIT: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_secs(1);

/// Starts everything, tells `up` that it is ready, and keeps it until it is told to end.
pub async fn supervise(major: Major) -> Result<()> {
    // A session of its own: closing the terminal or pressing Ctrl-C there does not reach it.
    setsid().context("cannot leave the session of the terminal")?;
    std::env::set_current_dir("/")?;
    let folder = folder()?;
    let run = Arc::new(RunDir::at(&folder)?);
    fs::write(pid_file(&folder), std::process::id().to_string())?;
    say::also_to(&folder.join("supervisor.log"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shape = Shape {
        operators: 2,
        operator_args: ["--api-addr", "127.0.0.1:0", "--api-tenant", sample::DATABASES]
            .map(str::to_owned)
            .into(),
        node: true,
        postgres: major,
        ..Shape::default()
    };
    let start = async {
        let stack = Stack::start_in(Arc::clone(&run), shape).await?;
        ready(&stack, &folder).await?;
        anyhow::Ok(stack)
    };
    let stack = tokio::select! {
        stack = start => stack?,
        _ = terminate.recv() => bail!("told to end while starting"),
    };
    // `up` reads this; if it is gone, nobody wants the cluster any more.
    std::io::stdout()
        .write_all(READY.as_bytes())
        .and_then(|()| std::io::stdout().flush())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(TICK) => keep(&stack, &folder)?,
        }
    }
    say("ending");
    stack.shut_down();
    Ok(())
}

async fn ready(stack: &Stack, folder: &Path) -> Result<()> {
    say(format!(
        "writing the sample: database orders, base secret and pool in the namespace {}",
        sample::DATABASES
    ));
    stack
        .cluster()
        .apply(&sample::namespace(sample::DATABASES, &std::collections::BTreeMap::new()).to_string())?;
    stack.sample(sample::DATABASES, Some(REPLICAS))?;
    say(format!(
        "waiting for {REPLICAS} engines; without a kubelet they run as processes of this machine"
    ));
    stack
        .eventually("the engines of the pool connect", ENGINES_LIMIT, || {
            engines_ready(stack)
        })
        .await?;
    let Login { user, password } = stack.postgres().superuser();
    let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
    let kubectl = stack
        .cluster()
        .kubectl_program()
        .parent()
        .context("kubectl lies in no folder")?;
    let env = format!(
        "export KUBECONFIG='{}'\nexport PATH='{}':'{}':\"$PATH\"\nexport PGHOST={}\nexport PGPORT={}\n\
         export PGUSER={user}\nexport PGPASSWORD={password}\n",
        quoted(&stack.kubeconfig()),
        quoted(kubectl),
        quoted(&places::bin_dir()?),
        stack.postgres().host(),
        stack.postgres().port(),
    );
    write_status(stack, folder)?;
    fs::write(api_file(folder), api(stack).await?)?;
    write_private(&env_file(folder), &env)?;
    say("all is ready");
    Ok(())
}

/// How the REST API is reached, for people.
async fn api(stack: &Stack) -> Result<String> {
    let listening = || async {
        let log = stack
            .operators()
            .first()
            .map(|operator| operator.log_text())
            .unwrap_or_default();
        let line = log.lines().rfind(|line| line.contains("the API listens"));
        let rest = line.and_then(|line| line.split("address=").nth(1));
        Ok(rest.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned))
    };
    let address = stack
        .eventually("the REST API listens", ENGINES_LIMIT, listening)
        .await?;
    let tenant = sample::DATABASES;
    let secret = |name: &str, key: &str| {
        format!("kubectl -n {NAMESPACE} get secret {name} -o jsonpath='{{.data.{key}}}' | base64 -d")
    };
    Ok(format!(
        "The REST API for DSV clients: https://{address}, tenant {tenant} (the default), user admin\n  password:  {}\n  authority: {}\n",
        secret(&format!("dsv-admin-{tenant}"), "password"),
        secret("dsv-api-ca", "ca\\.crt"),
    ))
}

async fn engines_ready(stack: &Stack) -> Result<Option<()>> {
    let rows = stack
        .runner()
        .map(crate::engine_runner::EngineRunner::rows)
        .unwrap_or_default();
    for row in &rows {
        let (code, _) = health::get(row.health, "/readyz").await?;
        if code != 200 {
            return Ok(None);
        }
    }
    Ok((rows.len() >= REPLICAS as usize).then_some(()))
}

/// Starts an operator that died again, as a kubelet would, and brings the table of `status` up to date.
fn keep(stack: &Stack, folder: &Path) -> Result<()> {
    for operator in stack.operators().iter().filter(|operator| !operator.is_running()) {
        say(format!("{} has died; started again", operator.name()));
        operator.launch()?;
    }
    write_status(stack, folder)
}

fn write_status(stack: &Stack, folder: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for service in stack
        .cluster()
        .control_plane()
        .iter()
        .flat_map(|plane| plane.services())
    {
        let address = if service.name() == "kube-apiserver" {
            stack.cluster().url()
        } else {
            "-"
        };
        let log = service.log_path().display().to_string();
        rows.push(Row {
            name: service.name().to_owned(),
            pid: service.pid(),
            address: address.to_owned(),
            log,
        });
    }
    let postgres = stack.postgres();
    rows.push(Row {
        name: format!("postgresql {}", postgres.major()),
        pid: postgres.pid(),
        address: format!("{}:{}", postgres.host(), postgres.port()),
        log: postgres.log_path().display().to_string(),
    });
    for operator in stack.operators() {
        rows.push(Row {
            name: operator.name().to_owned(),
            pid: operator.pid(),
            address: format!("{} (health {})", operator.channel(), operator.health()),
            log: operator.log_path().display().to_string(),
        });
    }
    for row in stack.runner().iter().flat_map(|runner| runner.rows()) {
        rows.push(Row {
            name: row.name,
            pid: row.pid,
            address: format!("- (health {})", row.health),
            log: row.log,
        });
    }
    // By rename, so that `status` never reads half a table.
    let next = folder.join("status.json.next");
    fs::write(&next, serde_json::to_vec_pretty(&rows)?)?;
    Ok(fs::rename(next, status_file(folder))?)
}
