//! `kubectl dsv preflight`: what the login of a base secret lacks, as SQL to run. It is what an engine found last.

use super::connect::Cluster;
use super::error::Intention;
use super::rotate::existing;
use super::{Error, Output, show};
use crate::api::pool::ServerStatus;
use crate::api::{DynamicSecret, EnginePool};
use jiff::Timestamp;
use kube::Api;

/// Runs the command. Standard output has SQL only, so that it can go straight into `psql`.
pub async fn run(cluster: &Cluster, name: &str, output: Output) -> Result<(), Error> {
    let namespace = &cluster.namespace;
    let secrets: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), namespace);
    let asked = existing(&secrets, namespace, name).await?;
    let server = server(cluster, &asked).await?;
    if output != Output::Table {
        return show::print_value(output, &server);
    }
    show::remark(&summary(&server, Timestamp::now()));
    for line in &server.advice {
        show::remark(&format!("advice: {line}"));
    }
    if server.missing.is_empty() {
        return Ok(());
    }
    show::remark("a superuser of the database runs:");
    show::print(&server.missing.join("\n"))
}

/// Prints the SQL of the functions by which a login without superuser rights makes accounts that cost later ones nothing.
pub async fn install(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let namespace = &cluster.namespace;
    let secrets: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), namespace);
    let asked = existing(&secrets, namespace, name).await?;
    let server = server(cluster, &asked).await?;
    let (Some(login), Some(database)) = (&server.login, &server.database) else {
        return Err(Error::Refused(format!(
            "the pool's status does not tell the login and database of base secret {} yet; an operator of this version writes \
             both when it looks at the server next, at once after any change of the base secret",
            server.linked_secret
        )));
    };
    let sql = crate::postgres::install(login, database).map_err(|failure| Error::Refused(failure.message))?;
    show::remark(&format!(
        "a superuser runs this in database {database} of {}: kubectl dsv preflight {name} --install | psql {database}",
        server.address.as_deref().unwrap_or(&server.linked_secret)
    ));
    show::print(&sql)
}

/// What is known of the server of a dynamic secret.
pub async fn server(cluster: &Cluster, asked: &DynamicSecret) -> Result<ServerStatus, Error> {
    let namespace = asked.spec.pool.namespace.as_ref().unwrap_or(&cluster.namespace);
    let (name, linked) = (&asked.spec.pool.name, &asked.spec.link_config.linked_secret);
    let pools: Api<EnginePool> = Api::namespaced(cluster.client.clone(), namespace);
    let pool = pools.get(name).await;
    let pool = pool.to(|| format!("read EnginePool {namespace}/{name}"))?;
    let servers = pool.status.unwrap_or_default().servers;
    servers
        .into_iter()
        .find(|server| server.linked_secret == *linked)
        .ok_or_else(|| {
            Error::Refused(format!(
                "EnginePool {namespace}/{name} does not list the base secret {linked}: it lies in namespace {namespace} with \
                 the label dsv.dev/type=postgresql, and is looked at when an engine is connected"
            ))
        })
}

fn summary(server: &ServerStatus, now: Timestamp) -> String {
    let unknown = "unknown";
    let looked = server
        .checked_at
        .as_ref()
        .map_or_else(|| "never".to_owned(), |at| show::from_now(now, at.0));
    let state = match (server.ready, &server.message) {
        (true, _) => "ready".to_owned(),
        (false, Some(message)) => format!("not ready: {message}"),
        (false, None) => "not ready".to_owned(),
    };
    format!(
        "{} ({}, PostgreSQL {}, TLS {}, looked at {looked}): {state}",
        server.linked_secret,
        server.address.as_deref().unwrap_or(unknown),
        server.version.as_deref().unwrap_or(unknown),
        server.tls.as_deref().unwrap_or("off"),
    )
}
