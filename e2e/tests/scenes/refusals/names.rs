//! Names with signs that mean something to SQL, to a shell, to a URL: served as names, or refused, never taken for SQL.

use std::str::FromStr;
use std::time::Duration;

use dsv::api::names::{UID_CHARS, base32_uid};
use e2e::postgres::{Login, random_password};
use e2e::sample;
use futures::future::join_all;
use postgres_protocol::escape::escape_identifier;
use serde_json::{Value, json};

use crate::refusals::kube_client::condition;
use crate::refusals::world::{PATIENCE, World, within};

const LIMIT: Duration = PATIENCE;
const DOOR: &str = "CREATE TABLE public.canary (n int)";

/// As they would stand in a careless statement.
const NAMES: [&str; 16] = [
    "it's",
    "dou\"ble",
    "\"",
    "'; DROP TABLE public.canary; --",
    "\"; DROP TABLE public.canary; --",
    "back\\slash\\'",
    "semi;colon",
    "dash--dash",
    "/*comment",
    "$$dollar$1$$",
    "line\nfeed\ttab",
    "%s {} $user",
    "Upper Case ",
    "käse-表-🦀",
    "select",
    "sixty-three-bytes-sixty-three-bytes-sixty-three-bytes-sixty-thr",
];

fn quoted(name: &str) -> String {
    escape_identifier(name)
}

struct Wish {
    name: String,
    spec: Value,
    /// What the account must be able to read, in which database.
    reads: Vec<String>,
    database: String,
}

impl Wish {
    fn new(world: &World, name: impl Into<String>, base: &str) -> Self {
        let name = name.into();
        let mut spec = world.spec(base);
        spec["ttl"] = json!(60);
        spec["target"] = json!({"name": format!("login-{}", base32_uid(&uuid_of(&name)).unwrap())});
        Self {
            name,
            spec,
            reads: vec!["public.orders".into()],
            database: sample::ORDERS.into(),
        }
    }

    fn granted(mut self, places: Vec<String>) -> Self {
        self.spec.as_object_mut().unwrap().remove("grantPermissions");
        let grants = places.iter().map(|place| json!({"what": "SELECT", "where": place}));
        self.spec["grants"] = grants.collect();
        self.reads = places;
        self
    }
}

/// A UUID made of a name, only to have a Secret name of known form.
fn uuid_of(name: &str) -> String {
    use sha2::{Digest, Sha256};
    let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(name.as_bytes())[..16]);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A table of that name in a schema of that name, owned by the issuer; the place in our words.
async fn make_place(client: &tokio_postgres::Client, issuer: &str, name: &str) -> String {
    let (name, issuer) = (quoted(name), quoted(issuer));
    let sql = format!(
        "CREATE SCHEMA {name} AUTHORIZATION {issuer}; CREATE TABLE {name}.{name} (n int); ALTER TABLE {name}.{name} OWNER TO {issuer}"
    );
    client.batch_execute(&sql).await.unwrap();
    format!("{name}.{name}")
}

async fn by_tables(world: &World) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (number, name) in NAMES.iter().enumerate() {
        let place = make_place(&world.admin, &world.stack.issuer().user, name).await;
        let wish = Wish::new(world, format!("table-{number}"), "orders-db");
        wishes.push(wish.granted(vec![place, "public.orders".into()]));
    }
    wishes
}

async fn by_databases(world: &World) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (number, name) in [
        "dou\"ble; it's--",
        "back\\slash $1 {}",
        "käse-表 ?sslmode=disable&a=b#/%20",
    ]
    .into_iter()
    .enumerate()
    {
        let server = world.stack.postgres();
        server.create_database(name).await.unwrap();
        let issuer = &world.stack.issuer().user;
        world
            .sql(&format!(
                "GRANT ALL ON DATABASE {} TO {} WITH GRANT OPTION",
                quoted(name),
                quoted(issuer)
            ))
            .await;
        let there = server.connect(name).await.unwrap();
        let place = make_place(&there, issuer, name).await;
        let base = format!("odd-database-{number}");
        let secret = sample::base_secret(&world.databases, &base, server, world.stack.issuer(), name);
        world.kube.put(&secret).await;
        let wish = Wish::new(world, format!("database-{number}"), &base);
        // Once without the database, once with it.
        let wish = wish.granted(vec![place.clone(), format!("{}.{place}", quoted(name))]);
        wishes.push(Wish {
            reads: vec![place],
            database: name.to_owned(),
            ..wish
        });
    }
    wishes
}

/// The administrative login itself may be called anything.
async fn by_login(world: &World) -> Wish {
    let login = Login {
        user: "odd \"admin\"; it's--\\".into(),
        password: random_password(),
    };
    world
        .stack
        .postgres()
        .create_issuer(&login.user, &login.password)
        .await
        .unwrap();
    let user = quoted(&login.user);
    world
        .sql(&format!(
            "GRANT ALL ON DATABASE orders TO {user} WITH GRANT OPTION; GRANT ALL ON SCHEMA public TO {user} WITH GRANT OPTION;
             GRANT ALL ON public.orders TO {user} WITH GRANT OPTION"
        ))
        .await;
    let secret = sample::base_secret(
        &world.databases,
        "odd-login",
        world.stack.postgres(),
        &login,
        sample::ORDERS,
    );
    world.kube.put(&secret).await;
    Wish::new(world, "login", "odd-login")
}

fn by_own_names(world: &World) -> Vec<Wish> {
    let long = "long.".repeat(39) + "name";
    let names = ["a.b-c.d", "x--y", "0", "pg", "drop.table.canary", "select", &long];
    let mut wishes: Vec<Wish> = names
        .into_iter()
        .map(|name| Wish::new(world, name, "orders-db"))
        .collect();
    for wish in &mut wishes {
        // Without a prefix the name stands first.
        wish.spec.as_object_mut().unwrap().remove("userPrefix");
    }
    let mut longest = Wish::new(world, "longest-prefix", "orders-db");
    longest.spec["userPrefix"] = json!("p".repeat(36));
    let mut path = Wish::new(world, "path", "orders-db");
    path.spec["account"] = json!({"searchPath": ["it's", "dou\"ble", "'; DROP TABLE public.canary; --"]});
    wishes.extend([longest, path]);
    wishes
}

async fn served(world: &World, wish: &Wish) -> Result<(), String> {
    let target = wish.spec["target"]["name"].as_str().unwrap();
    let read = async || world.kube.read("DynamicSecret", &world.databases, &wish.name).await;
    let ready = within(LIMIT, async || {
        condition(&read().await?, "Ready").filter(|ready| ready.reason == "Issued")
    })
    .await;
    if ready.is_none() {
        return Err(format!("not issued: {}", read().await.unwrap_or_default()["status"]));
    }
    let secret = world
        .kube
        .read("Secret", &world.databases, target)
        .await
        .ok_or("no Secret")?;
    let text = |key: &str| {
        let value = secret["data"][key].as_str().unwrap_or_default();
        String::from_utf8(data_encoding::BASE64.decode(value.as_bytes()).unwrap()).unwrap()
    };
    let login = Login {
        user: text("username"),
        password: text("password"),
    };
    check_user(wish, &login.user)?;
    check_uri(&text("uri"), &login, &wish.database)?;
    let session = world
        .stack
        .postgres()
        .connect_as(&login, &text("database"))
        .await
        .map_err(|error| format!("{error:#}"))?;
    for place in &wish.reads {
        session
            .batch_execute(&format!("SELECT * FROM {place}"))
            .await
            .map_err(|error| format!("{place}: {error}"))?;
    }
    if wish.database == sample::ORDERS && session.batch_execute("SELECT * FROM public.canary").await.is_ok() {
        return Err("it can read what was not granted".to_owned());
    }
    if let Some(path) = wish.spec["account"]["searchPath"].as_array() {
        let wanted: Vec<String> = path.iter().map(|name| quoted(name.as_str().unwrap())).collect();
        let row = session
            .query_one("SHOW search_path", &[])
            .await
            .map_err(|error| error.to_string())?;
        let got: String = row.get(0);
        if got != wanted.join(", ") {
            return Err(format!("the search path is {got}"));
        }
    }
    Ok(())
}

/// Prefix, then what fits of the name, then the lease's UID.
fn check_user(wish: &Wish, user: &str) -> Result<(), String> {
    let prefix = wish.spec["userPrefix"].as_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let fits = user.len() <= 63 && user.len() > UID_CHARS && user.starts_with(prefix) && user.chars().all(plain);
    if fits && !user.starts_with("pg_") {
        Ok(())
    } else {
        Err(format!("the account is called {user}"))
    }
}

/// The URI means the same as the single keys.
fn check_uri(uri: &str, login: &Login, database: &str) -> Result<(), String> {
    // The driver here knows fewer words for sslmode than libpq.
    let (address, options) = uri.split_once('?').ok_or("the URI has no options")?;
    let config = tokio_postgres::Config::from_str(address).map_err(|error| format!("{uri}: {error}"))?;
    let same = config.get_user() == Some(&login.user)
        && config.get_password() == Some(login.password.as_bytes())
        && config.get_dbname() == Some(database)
        && options == "sslmode=verify-full";
    if same {
        Ok(())
    } else {
        Err(format!(
            "the URI leads to {:?} {:?} {options}",
            config.get_user(),
            config.get_dbname()
        ))
    }
}

#[tokio::test]
async fn a_name_stays_a_name_whatever_signs_are_in_it() {
    let world = World::new("odd").await;
    world.kube.put(&world.base("orders-db")).await;
    world.sql(DOOR).await;
    let mut wishes = by_tables(&world).await;
    wishes.extend(by_databases(&world).await);
    wishes.push(by_login(&world).await);
    wishes.extend(by_own_names(&world));
    for wish in &wishes {
        let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": wish.name, "namespace": &*world.databases}, "spec": wish.spec});
        world.kube.put(&object).await;
    }
    let outcomes = join_all(wishes.iter().map(|wish| served(&world, wish))).await;
    let wrong: Vec<String> = wishes
        .iter()
        .zip(outcomes)
        .filter_map(|(wish, outcome)| {
            Some(format!(
                "{} {:?}: {}\n{}",
                wish.name,
                wish.reads,
                outcome.err()?,
                world.log_about(&wish.name)
            ))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.sql("SELECT * FROM public.canary").await;
    let log = world.stack.postgres().log_text();
    let faults: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("syntax error") || line.contains("unterminated"))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// PostgreSQL would cut it, and two names could become one.
#[tokio::test]
async fn a_name_that_postgres_would_cut_is_refused() {
    let world = World::new("cut").await;
    world.kube.put(&world.base("orders-db")).await;
    let long = "t".repeat(64);
    let wish = Wish::new(&world, "cut", "orders-db").granted(vec![format!("public.{long}")]);
    let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": "cut", "namespace": &*world.databases}, "spec": wish.spec});
    world.kube.put(&object).await;
    let ready = within(LIMIT, async || {
        condition(
            &world.kube.read("DynamicSecret", &world.databases, "cut").await?,
            "Ready",
        )
    })
    .await;
    let ready = ready.expect("a condition");
    assert_eq!(ready.reason, "InvalidSpec", "{}", ready.message);
    assert!(
        ready.message.contains(&format!(
            "where: `{long}` is longer than 63 bytes, which is PostgreSQL's limit for a name"
        )),
        "{}",
        ready.message
    );
}
