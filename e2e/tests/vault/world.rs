//! Two operators that serve the API, a tenant, and a client that speaks HTTP and nothing of ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::engine::Engine;
use e2e::objects::{Objects, text};
use e2e::operator::Operator;
use e2e::say::say;
use e2e::stack::Stack;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The default tenant.
pub const TENANT: &str = "acme";
/// Another one.
pub const OTHER: &str = "umbrella";
/// In the folder of each operator.
const AUDIT: &str = "audit.jsonl";
const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
static WORLD: OnceCell<World> = OnceCell::const_new();

pub struct World {
    pub stack: Stack,
    /// The authority of the API's certificate, PEM.
    pub authority: String,
    addresses: Vec<SocketAddr>,
    connector: TlsConnector,
    /// The first administrator's password.
    pub password: String,
    /// His token.
    pub admin: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} is no JSON: {}", self.code, self.text))
    }

    /// The body, after the code was found right.
    pub fn is(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// A failure of that code with that message.
    pub fn fails(self, code: u16, message: &str) -> Value {
        let body = self.is(code);
        assert_eq!(body["code"], code);
        let said = text(&body, "/message");
        assert!(said.contains(message), "{said:?} does not say {message:?}");
        body
    }
}

pub async fn world() -> &'static World {
    WORLD
        .get_or_init(|| async { RUNTIME.spawn(World::start()).await.unwrap().unwrap() })
        .await
}

/// A name that nobody else has.
pub fn fresh(stem: &str) -> String {
    format!("{stem}-{:08x}", rand::random::<u32>())
}

impl World {
    async fn start() -> Result<Self> {
        let mut shape = crate::shape()?;
        let args = ["--api-tenant", TENANT, "--api-audit-file", AUDIT];
        shape.operator_args.extend(args.map(str::to_owned));
        let stack = Stack::start(shape).await?;
        stack.kubectl(&["create", "namespace", TENANT])?;
        stack.kubectl(&["create", "namespace", OTHER])?;
        stack.kubectl(&["label", "namespace", OTHER, "dsv.dev/tenant=true"])?;
        // The first leader makes it; before, no engine can be registered.
        stack.secret_value("dsv-root", "key").await?;
        let authority = stack.secret_value("dsv-api-ca", "ca.crt").await?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listening = || async {
            let all = stack.operators().iter().map(Operator::api);
            Ok(Some(all.collect::<Result<Vec<_>>>()?))
        };
        let addresses = stack
            .eventually("both replicas serve the API", PATIENCE, listening)
            .await?;
        let mut world = Self {
            addresses,
            connector: TlsConnector::from(Arc::new(config)),
            password: stack.secret_value(&format!("dsv-admin-{TENANT}"), "password").await?,
            authority,
            admin: String::new(),
            stack,
        };
        let log_in = || async {
            let answer = world.log_in("admin", &world.password).await?;
            ensure!(answer.code == 200, "{}", answer.text);
            Ok(Some(text(&answer.json(), "/accessToken")))
        };
        let token = world
            .stack
            .eventually("the first administrator logs in", PATIENCE, log_in)
            .await?;
        world.admin = token;
        Ok(world)
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.addresses[0])
    }

    /// The audit file of one replica.
    pub fn audit_file(&self, replica: usize) -> std::path::PathBuf {
        let log = self.stack.operators()[replica].log_path();
        log.parent().unwrap().join(AUDIT)
    }

    /// Of the first replica.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn port(&self) -> u16 {
        self.addresses[0].port()
    }

    pub async fn objects(&self) -> Objects {
        Objects::new(self.stack.client().await.unwrap())
    }

    pub async fn log_in(&self, user: &str, password: &str) -> Result<Answer> {
        let body = json!({"grant_type": "password", "username": user, "password": password});
        self.send(0, "POST", "/v1/token", &[], body.to_string().into_bytes())
            .await
    }

    /// A connection to one replica.
    pub async fn connect(&self, replica: usize) -> Result<TlsStream<TcpStream>> {
        self.connect_to(self.addresses[replica]).await
    }

    /// The API of a replica that is none of the usual two, as soon as it serves.
    pub async fn address_of(&self, operator: &Operator) -> SocketAddr {
        let listening = || async { Ok(Some(operator.api()?)) };
        let what = "another replica serves the API";
        self.stack.eventually(what, PATIENCE, listening).await.unwrap()
    }

    /// A connection to any replica.
    pub async fn connect_to(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        Ok(self.connector.connect(name, stream).await?)
    }

    /// One request, as it is given.
    pub async fn send(
        &self,
        replica: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        self.send_to(self.addresses[replica], (method, path), headers, body)
            .await
    }

    /// The same to any replica.
    pub async fn send_to(
        &self,
        address: SocketAddr,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let stream = TokioIo::new(self.connect_to(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("Host", address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(Answer {
            code,
            headers,
            text: String::from_utf8(bytes.to_vec()).context("the answer is no text")?,
        })
    }

    /// A call with a token at one replica; a body of null is none.
    pub async fn at(&self, replica: usize, token: &str, call: &str, body: &Value) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let headers = [("Authorization", token), ("Content-Type", "application/json")];
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let path = format!("/v1/{path}");
        self.send(replica, method, &path, &headers, bytes).await.unwrap()
    }

    /// A call of the administrator.
    pub async fn call(&self, call: &str, body: &Value) -> Answer {
        self.at(0, &self.admin, call, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), &Value::Null).await
    }

    /// Reads an account. A reader whose lease fails is told so and asks again, as people do: on a busy machine an attempt may fail.
    pub async fn read(&self, path: &str) -> Value {
        let mut answer = self.get(path).await;
        for _ in 0..4 {
            if ![502, 504].contains(&answer.code) {
                break;
            }
            say(format!("{path}: {}", answer.text));
            answer = self.get(path).await;
        }
        answer.is(200)
    }

    /// A role with a client that may do what the statement says; returns id and secret.
    pub async fn client(&self, statement: &Value) -> (String, String) {
        let role = fresh("role");
        self.call(
            "POST roles/",
            &json!({"name": role, "description": "", "provider": "", "externalId": ""}),
        )
        .await
        .is(201);
        let mut statement = statement.clone();
        statement["subjects"] = json!([format!("roles:{role}")]);
        statement["effect"] = json!("allow");
        let document = json!({"permissionDocument": [statement]}).to_string();
        let body = json!({"path": format!("secrets:{role}"), "policy": document, "serialization": "json"});
        self.call("POST config/policies/", &body).await.is(201);
        let client = self.call("POST clients/", &json!({"role": role})).await.is(201);
        (text(&client, "/clientId"), text(&client, "/clientSecret"))
    }

    /// The token of such a client.
    pub async fn token(&self, statement: &Value) -> String {
        let (id, secret) = self.client(statement).await;
        let body = json!({"grant_type": "client_credentials", "client_id": id, "client_secret": secret});
        let answer = self.at(0, "", "POST token", &body).await.is(200);
        text(&answer, "/accessToken")
    }

    /// A pool with a running engine, both made by HTTP.
    pub async fn pool_with_engine(&self) -> (String, Engine) {
        let (pool, engine) = (fresh("pool"), fresh("engine"));
        self.call("POST pools/", &json!({"name": pool})).await.is(201);
        let body = json!({"name": engine, "poolName": pool});
        let made = self.call("POST engines/", &body).await.is(201);
        let registration = BTreeMap::from([
            ("ENGINE_NAME".to_owned(), engine.clone()),
            ("DSV_ENDPOINT".to_owned(), text(&made, "/endpoint")),
            ("DSV_PRIVATE_KEY".to_owned(), text(&made, "/privateKey")),
        ]);
        let started = Engine::start(self.stack.run(), &engine, &registration, None).unwrap();
        started.wait_ready().await.unwrap();
        (pool, started)
    }

    /// A base secret of the stack's database.
    pub async fn base(&self) -> String {
        let path = format!("db:{}", fresh("root"));
        let (server, issuer) = (self.stack.postgres(), self.stack.issuer());
        let body = json!({
            "Data": {
                "host": server.host(),
                "port": server.port(),
                "username": issuer.user,
                "password": issuer.password,
                "database": "orders",
                "sslmode": "verify-full",
                "ca.crt": server.authority(),
            },
            "Description": "postgresql root credentials",
            "Attributes": {"type": "postgresql"},
            "Overwrite": false,
        });
        let call = format!("POST secrets/{}", path.replace(':', "/"));
        self.call(&call, &body).await.is(201);
        path
    }

    /// A dynamic secret that links a base secret.
    pub async fn dynamic(&self, base: &str, pool: &str, more: &Value) -> String {
        let path = format!("db:{}", fresh("dyn"));
        let mut attributes = json!({
            "grantPermissions": {"what": "SELECT", "where": "public.orders"},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": base},
            "pool": pool,
            "ttl": 1000,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            attributes[key] = value.clone();
        }
        let body = json!({"attributes": attributes, "data": {}, "description": ""});
        self.call(&format!("POST secrets/{path}"), &body).await.is(201);
        path
    }
}
