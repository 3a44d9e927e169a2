//! Accounts that hold on: by what they do in their sessions, and by what they own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postgres_protocol::escape::escape_identifier;
use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::lane::Lane;
use super::tales::{Tale, tale};
use crate::postgres::Login;
use crate::sample::ORDERS;

/// How soon after the deletion nobody can log in or is logged in any more, however the account resists.
const CUT: Duration = Duration::from_secs(10);
const STORM: usize = 16;

pub fn tales() -> Vec<Tale> {
    vec![
        tale!("idle session", idle),
        tale!("session in a transaction with locks", in_transaction),
        tale!("temporary table", temporary_table),
        tale!("settings of its own", own_settings),
        tale!("login storm of 16 clients", login_storm),
        tale!("membership granted by hand", membership),
        tale!("prepared transaction", prepared_transaction),
        tale!("owned tables", owned_tables),
        tale!("SECURITY DEFINER function", owned_function),
        tale!("large object", large_object),
        tale!("default privileges", default_privileges),
        tale!("grants handed on", grants_handed_on),
        tale!("right given by a superuser", right_of_a_superuser),
    ]
}

async fn account(lane: &Lane<'_>, name: &str) -> Result<Login> {
    let spec = json!({"ttl": 20, "issuance": {"mode": "Once"}});
    lane.scene.ask(name, &spec).await?;
    Ok(lane.scene.wait_credential(name).await?.login)
}

/// Deletes the dynamic secret; soon nobody is in and nobody comes in, whatever else is still held up.
async fn end(lane: &Lane<'_>, name: &str, login: &Login) -> Result<()> {
    lane.scene
        .objects
        .delete("DynamicSecret", &lane.scene.shop, name)
        .await?;
    let check = || async {
        ensure!(lane.scene.log_in(login).await.is_err(), "{} can log in", login.user);
        let superuser = lane.scene.server().connect("postgres").await?;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        let sessions: i64 = superuser.query_one(query, &[&login.user]).await?.get(0);
        ensure!(sessions == 0, "{sessions} sessions are open");
        Ok(Some(()))
    };
    lane.stack.eventually("the account is cut off", CUT, check).await
}

async fn resist(lane: &Lane<'_>, name: &str, sql: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let session = lane.scene.log_in(&login).await?;
    session.batch_execute(sql).await.with_context(|| sql.to_owned())?;
    end(lane, name, &login).await
}

async fn idle(lane: &Lane<'_>, name: &str) -> Result<()> {
    resist(lane, name, "SELECT 1").await
}

async fn in_transaction(lane: &Lane<'_>, name: &str) -> Result<()> {
    resist(
        lane,
        name,
        "BEGIN; SELECT * FROM public.orders; LOCK TABLE public.orders IN ACCESS SHARE MODE",
    )
    .await
}

async fn temporary_table(lane: &Lane<'_>, name: &str) -> Result<()> {
    resist(lane, name, "CREATE TEMP TABLE mine AS SELECT * FROM public.orders").await
}

async fn own_settings(lane: &Lane<'_>, name: &str) -> Result<()> {
    resist(lane, name, "ALTER ROLE CURRENT_USER SET work_mem = '8MB'").await
}

/// Sixteen clients that log in again and again, from before the end until after it.
async fn login_storm(lane: &Lane<'_>, name: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let server = lane.scene.server();
    let storm = async {
        let client = || async {
            let (mut sessions, mut refused) = (Vec::<Client>::new(), 0);
            while refused < 20 {
                match server.connect_as(&login, ORDERS).await {
                    Ok(session) => sessions.push(session),
                    Err(_) => refused += 1,
                }
                sessions.truncate(4);
                sleep(Duration::from_millis(5)).await;
            }
            // Those that came in at the last moment are held until after the judgement of the tale.
            sessions
        };
        futures::future::join_all((0..STORM).map(|_| client())).await
    };
    let ended = async {
        sleep(Duration::from_millis(500)).await;
        end(lane, name, &login).await
    };
    let (_sessions, ended) = futures::join!(storm, ended);
    ended
}

/// As the superuser; whatever is given must go with the account.
async fn by_hand(lane: &Lane<'_>, database: &str, sql: &str) -> Result<()> {
    let superuser = lane.scene.server().connect(database).await?;
    superuser.batch_execute(sql).await.with_context(|| sql.to_owned())
}

/// As the login in the base secret, who may take back what it gave. Rights on one object that are given at the same time
/// disturb each other, so it is tried again.
async fn as_issuer(lane: &Lane<'_>, sql: &str) -> Result<()> {
    let issuer = lane.scene.server().connect_as(lane.scene.issuer(), ORDERS).await?;
    let mut tries = 0;
    while let Err(error) = issuer.batch_execute(sql).await {
        tries += 1;
        ensure!(tries < 20, "{sql}: {error}");
        sleep(Duration::from_millis(50 * tries)).await;
    }
    Ok(())
}

/// What a superuser gave only a superuser can take back: the lease says so, with the SQL, and ends when that was run.
async fn right_of_a_superuser(lane: &Lane<'_>, name: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let lease = lane
        .scene
        .credential(name)
        .await?
        .context("there is no credential")?
        .lease;
    let user = escape_identifier(&login.user);
    by_hand(lane, ORDERS, &format!("GRANT SELECT ON public.invoices TO {user}")).await?;
    end(lane, name, &login).await?;
    let shop = &*lane.scene.shop;
    lane.scene
        .wait_condition("CredentialLease", shop, &lease, "False/Blocked")
        .await?;
    by_hand(lane, ORDERS, &format!("DROP OWNED BY {user}")).await
}

async fn membership(lane: &Lane<'_>, name: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let user = escape_identifier(&login.user);
    by_hand(
        lane,
        "postgres",
        &format!("GRANT pg_monitor TO {user} WITH ADMIN OPTION"),
    )
    .await?;
    end(lane, name, &login).await
}

async fn prepared_transaction(lane: &Lane<'_>, name: &str) -> Result<()> {
    let gid = format!("resists_{name}");
    let sql = format!("BEGIN; SELECT count(*) FROM public.orders FOR KEY SHARE; PREPARE TRANSACTION '{gid}'");
    let sql = sql.replace(" FOR KEY SHARE", "");
    let resisted = resist(lane, name, &sql).await;
    // It holds no role, but nobody else would ever end it.
    let client = lane.scene.server().connect(ORDERS).await?;
    let _ = client.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await;
    resisted
}

/// Gives the account the right to make objects, has it make them, ends it, and removes what was handed over.
async fn owning(lane: &Lane<'_>, name: &str, sql: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let user = escape_identifier(&login.user);
    as_issuer(lane, &format!("GRANT CREATE, USAGE ON SCHEMA public TO {user}")).await?;
    let session = lane.scene.log_in(&login).await?;
    session.batch_execute(sql).await.with_context(|| sql.to_owned())?;
    end(lane, name, &login).await?;
    lane.scene.wait_absent("DynamicSecret", &lane.scene.shop, name).await?;
    let superuser = lane.scene.server().connect(ORDERS).await?;
    let made = format!("{name}_");
    let rows = superuser
        .query(
            "SELECT c.relname::text, r.rolname::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner \
             WHERE starts_with(c.relname, $1) AND c.relkind = 'r'",
            &[&made.replace('-', "_")],
        )
        .await?;
    for row in &rows {
        let (table, owner): (String, String) = (row.get(0), row.get(1));
        ensure!(owner != login.user, "{table} still belongs to {owner}");
    }
    Ok(())
}

async fn owned_tables(lane: &Lane<'_>, name: &str) -> Result<()> {
    let made = name.replace('-', "_");
    let sql = format!(
        "CREATE TABLE public.{made}_a (n int PRIMARY KEY); CREATE TABLE public.{made}_b (n int REFERENCES public.{made}_a); \
         INSERT INTO public.{made}_a VALUES (1)"
    );
    owning(lane, name, &sql).await
}

async fn owned_function(lane: &Lane<'_>, name: &str) -> Result<()> {
    let made = name.replace('-', "_");
    let sql = format!(
        "CREATE FUNCTION public.{made}_f() RETURNS bigint LANGUAGE sql SECURITY DEFINER \
         AS 'SELECT count(*) FROM public.orders'"
    );
    owning(lane, name, &sql).await
}

async fn large_object(lane: &Lane<'_>, name: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let session = lane.scene.log_in(&login).await?;
    let oid: u32 = session.query_one("SELECT lo_create(0)", &[]).await?.get(0);
    end(lane, name, &login).await?;
    lane.scene.wait_absent("DynamicSecret", &lane.scene.shop, name).await?;
    let superuser = lane.scene.server().connect(ORDERS).await?;
    let owner = "SELECT pg_get_userbyid(lomowner)::text FROM pg_largeobject_metadata WHERE oid = $1";
    let owner: String = superuser.query_one(owner, &[&oid]).await?.get(0);
    ensure!(owner != login.user, "the large object still belongs to {owner}");
    Ok(())
}

async fn default_privileges(lane: &Lane<'_>, name: &str) -> Result<()> {
    owning(
        lane,
        name,
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
    )
    .await
}

/// With a grant option it was given by hand, the account hands a right on to somebody else.
async fn grants_handed_on(lane: &Lane<'_>, name: &str) -> Result<()> {
    let login = account(lane, name).await?;
    let user = escape_identifier(&login.user);
    as_issuer(
        lane,
        &format!("GRANT SELECT ON public.invoices TO {user} WITH GRANT OPTION"),
    )
    .await?;
    let session = lane.scene.log_in(&login).await?;
    session
        .batch_execute("GRANT SELECT ON public.invoices TO PUBLIC")
        .await?;
    end(lane, name, &login).await
}
