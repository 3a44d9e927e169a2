//! Faults of database servers: not there, not letting us in, not letting us grant.

use data_encoding::BASE64;
use dsv::api::conditions::Reason;
use e2e::certificates::Authority;
use e2e::postgres::Login;
use e2e::{ports, sample};
use serde_json::{Value, json};

use crate::refusals::trial::{Row, hold};
use crate::refusals::world::World;

/// Makes the base secret with other values; writing the good one mends it.
async fn misled(world: &World, name: &'static str, values: Value) -> Row {
    let mut secret = world.base(name);
    let data = secret["stringData"].as_object_mut().unwrap();
    data.extend(values.as_object().unwrap().clone());
    world.kube.put(&secret).await;
    Row::new(world, "", name, Reason::DatabaseError, &[])
        .mended(move |world| Box::pin(async move { world.kube.put(&world.base(name)).await }))
}

fn as_row(row: Row, fault: &'static str, reason: Reason, says: &[&str]) -> Row {
    Row {
        fault,
        reason,
        says: says.iter().map(|text| (*text).to_owned()).collect(),
        ..row
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_told_with_what_to_check_and_mending_the_base_secret_is_enough() {
    let world = World::new("servers").await;
    let closed = ports::free().unwrap();
    let wrong_authority = Authority::new("somebody else").unwrap();
    let (plain, plain_issuer) = World::plain().await;
    let rows = vec![
        as_row(
            misled(&world, "closed", json!({"port": closed.to_string()})).await,
            "nothing listens on the port",
            Reason::DatabaseUnreachable,
            &[
                &format!("server of base secret {}/closed at 127.0.0.1:{closed} cannot be reached", &*world.databases),
                "check host, port and network policy",
            ],
        ),
        as_row(
            misled(&world, "nowhere", json!({"host": "no-such-host.invalid"})).await,
            "the host's name is unknown",
            Reason::DatabaseUnreachable,
            &["no-such-host.invalid", "check host, port and network policy"],
        ),
        as_row(
            misled(&world, "password", json!({"password": "wrong"})).await,
            "the password is wrong",
            Reason::LoginRefused,
            &["refused dsv_issuer in database orders", "check username and password of the base secret"],
        ),
        as_row(
            misled(&world, "user", json!({"username": "nobody-here"})).await,
            "the user does not exist",
            Reason::LoginRefused,
            &["refused nobody-here in database orders", "check username and password of the base secret"],
        ),
        as_row(
            misled(&world, "authority", json!({"ca.crt": wrong_authority.pem()})).await,
            "the certificate is of another authority",
            Reason::TlsRefused,
            &["no TLS with server", "check sslmode, ca.crt, tls.crt and tls.key"],
        ),
        as_row(
            misled(&world, "garbled", json!({"ca.crt": "not a certificate"})).await,
            "ca.crt is no certificate",
            Reason::TlsRefused,
            &["ca.crt holds no PEM certificate", "correct the base secret"],
        ),
        Row {
            plain: true,
            ..as_row(
                misled(&world, "plain", json!({"port": plain.port().to_string(), "sslmode": "require", "username": plain_issuer.user, "password": plain_issuer.password})).await,
                "the server cannot do TLS",
                Reason::TlsRefused,
                &["no TLS with server", "check sslmode"],
            )
            .mended(|world| {
                Box::pin(async {
                    // Plain text only where it is written down.
                    let data = json!({"sslmode": BASE64.encode(b"disable")});
                    world.kube.merge("Secret", &world.databases, "plain", &json!({"data": data})).await;
                })
            })
        },
        as_row(
            misled(&world, "database", json!({"database": "no_such_database"})).await,
            "the database does not exist",
            Reason::ObjectMissing,
            &["database \"no_such_database\" does not exist", "create it, or name another one"],
        ),
    ];
    hold(&world, rows).await;
}

/// A login that may do little, and its base secret.
async fn weak_login(world: &World, name: &'static str, rights: &str) -> Login {
    let (user, password) = (
        format!("weak_{name}_{:08x}", rand::random::<u32>()),
        e2e::postgres::random_password(),
    );
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    world
        .sql(&format!("CREATE ROLE {user} LOGIN PASSWORD '{verifier}' {rights}"))
        .await;
    let login = Login { user, password };
    let secret = sample::base_secret(&world.databases, name, world.stack.postgres(), &login, sample::ORDERS);
    world.kube.put(&secret).await;
    login
}

#[tokio::test]
async fn missing_rights_and_objects_are_told_as_sql_and_found_again_by_themselves() {
    let world = World::new("rights").await;
    for name in ["table", "schema", "wildcard"] {
        world.kube.put(&world.base(name)).await;
    }
    let weak = weak_login(&world, "weak", "").await;
    let poor = weak_login(&world, "poor", "CREATEROLE").await;
    world.sql(&format!("GRANT pg_signal_backend TO {}", poor.user)).await;
    let unique = format!("{:08x}", rand::random::<u32>());
    let on = |row: Row, place: &str| Row {
        spec: {
            let mut spec = row.spec.clone();
            spec["grantPermissions"]["where"] = json!(place);
            spec
        },
        group: true,
        ..row
    };
    let (table, schema, any) = (format!("t_{unique}"), format!("s_{unique}"), format!("w_{unique}"));
    let issuer = &world.stack.issuer().user;
    let rows = vec![
        Row::new(
            &world,
            "the login may neither make roles nor end sessions",
            "weak",
            Reason::MissingPrivilege,
            &["the login in base secret weak lacks privileges; run: ", &format!("ALTER ROLE \"{}\" CREATEROLE;", weak.user), &format!("GRANT pg_signal_backend TO \"{}\";", weak.user)],
        )
        .mended_in_the_database(format!(
            "ALTER ROLE {0} CREATEROLE; GRANT pg_signal_backend TO {0};
             GRANT ALL ON DATABASE orders TO {0} WITH GRANT OPTION; GRANT ALL ON SCHEMA public TO {0} WITH GRANT OPTION;
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {0} WITH GRANT OPTION",
            weak.user
        )),
        Row {
            group: true,
            ..Row::new(
                &world,
                "the login may not grant",
                "poor",
                Reason::GrantIncomplete,
                &["lacks privileges that this login may not grant; run: GRANT SELECT ON TABLE \"public\".\"orders\" TO"],
            )
            .mended_in_the_database(format!(
                "GRANT ALL ON DATABASE orders TO {0} WITH GRANT OPTION; GRANT ALL ON SCHEMA public TO {0} WITH GRANT OPTION;
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO {0} WITH GRANT OPTION",
                poor.user
            ))
        },
        on(
            Row::new(&world, "the table does not exist", "table", Reason::ObjectMissing, &[
                &format!("`orders.public.{table}` is nothing that SELECT can be granted on, or does not exist"),
                "create it, or correct the grants (nothing was issued)",
            ])
            .mended_in_the_database(format!("CREATE TABLE public.{table} (n int); GRANT ALL ON public.{table} TO {issuer} WITH GRANT OPTION")),
            &format!("public.{table}"),
        ),
        on(
            Row::new(&world, "the schema of a table does not exist", "schema", Reason::ObjectMissing, &[
                &format!("`orders.{schema}.t` is nothing that SELECT can be granted on, or does not exist"),
            ])
            .mended_in_the_database(format!(
                "CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (n int); GRANT ALL ON SCHEMA {schema} TO {issuer} WITH GRANT OPTION;
                 GRANT ALL ON {schema}.t TO {issuer} WITH GRANT OPTION"
            )),
            &format!("{schema}.t"),
        ),
        on(
            Row::new(&world, "the schema of a * does not exist", "wildcard", Reason::ObjectMissing, &[
                &format!("schema `{any}` does not exist in database `orders`"),
                "create it, or correct the grants",
            ])
            .mended_in_the_database(format!("CREATE SCHEMA {any} AUTHORIZATION {issuer}")),
            &format!("{any}.*"),
        ),
    ];
    hold(&world, rows).await;
}
