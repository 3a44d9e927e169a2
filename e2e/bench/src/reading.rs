//! Reading a static secret through the REST API, beside a bare GET of the very Secret that holds it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::objects::text;
use e2e::stack::Stack;
use futures::future::try_join_all;
use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::config::AuthInfo;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

use crate::figures::Row;
use crate::stats::{median, ms, percentile, rate};

/// The default tenant, which is a namespace.
pub const TENANT: &str = "acme";
const PATH: &str = "/v1/secrets/apps/shop/config";
const LIMIT: Duration = Duration::from_secs(60);
const READS: usize = 500;
const IN_FLIGHT: usize = 16;

/// Both ways to one secret.
struct Reader {
    /// The same kind of client for both, with the connections and the TLS of its own.
    rest: Client,
    token: String,
    bare: Api<Secret>,
    object: String,
}

/// In turn, one after the other and then many at once.
pub async fn measure(stack: &Stack, repeats: usize) -> Result<Vec<Row>> {
    let reader = Reader::open(stack).await?;
    let [mut ours, mut bare, mut our_rates, mut bare_rates] = [const { Vec::new() }; 4];
    for repeat in 0..=repeats {
        let took = (reader.one_by_one(false).await?, reader.one_by_one(true).await?);
        let rates = (reader.many(false).await?, reader.many(true).await?);
        // The first opens connections and fills caches.
        if repeat > 0 {
            ours.push(ms(percentile(&took.0, 50)));
            bare.push(ms(percentile(&took.1, 50)));
            our_rates.push(rates.0);
            bare_rates.push(rates.1);
        }
    }
    let note = "limit: a bare GET of the same Secret; ours is that GET, an authentication, a policy and a line of the audit stream";
    Ok(vec![
        Row::new("static secret read by REST, p50", "ms", median(&ours))
            .limit(median(&bare))
            .note(note),
        Row::new(
            format!("static secrets read by REST, {IN_FLIGHT} in flight"),
            "reads/s",
            median(&our_rates),
        )
        .limit(median(&bare_rates))
        .note(note),
    ])
}

impl Reader {
    async fn open(stack: &Stack) -> Result<Self> {
        let password = stack.secret_value(&format!("dsv-admin-{TENANT}"), "password").await?;
        let authority = stack.secret_value("dsv-api-ca", "ca.crt").await?;
        let operator = stack.operators().first().context("the stack has an operator")?;
        let listening = || async { Ok(Some(operator.api()?)) };
        let address = stack.eventually("the API is served", LIMIT, listening).await?;
        let mut config = Config::new(format!("https://{address}").parse()?);
        config.root_cert = Some(vec![der(&authority)?]);
        config.auth_info = AuthInfo::default();
        let rest = Client::try_from(config)?;
        let password = json!({"grant_type": "password", "username": "admin", "password": password});
        let log_in = || async {
            let answer = send(&rest, "POST", "/v1/token", None, &password).await?;
            Ok(Some(text(&answer, "/accessToken")))
        };
        let token = stack
            .eventually("the first administrator logs in", LIMIT, log_in)
            .await?;
        let secret = json!({"data": {"username": "app", "password": "correct horse battery staple"}});
        send(&rest, "POST", PATH, Some(&token), &secret).await?;
        let bare: Api<Secret> = Api::namespaced(stack.client().await?, TENANT);
        let kept = ListParams::default().fields("type=dsv.dev/secret");
        let object = bare
            .list(&kept)
            .await?
            .items
            .pop()
            .context("the secret is kept nowhere")?;
        Ok(Self {
            rest,
            token,
            object: object.name_any(),
            bare,
        })
    }

    async fn read(&self, bare: bool) -> Result<Duration> {
        let begun = Instant::now();
        if bare {
            self.bare.get(&self.object).await?;
        } else {
            let answer = send(&self.rest, "GET", PATH, Some(&self.token), &Value::Null).await?;
            anyhow::ensure!(
                text(&answer, "/data/username") == "app",
                "another secret than the one that was written"
            );
        }
        Ok(begun.elapsed())
    }

    async fn one_by_one(&self, bare: bool) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(READS);
        for _ in 0..READS {
            took.push(self.read(bare).await?);
        }
        Ok(took)
    }

    async fn many(&self, bare: bool) -> Result<f64> {
        let (begun, taken) = (Instant::now(), AtomicUsize::new(0));
        let lanes = (0..IN_FLIGHT).map(|_| async {
            while taken.fetch_add(1, Ordering::Relaxed) < READS * 4 {
                self.read(bare).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(lanes).await?;
        Ok(rate(READS * 4, begun.elapsed()))
    }
}

async fn send(client: &Client, method: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", token);
    }
    let body = if body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(body)?
    };
    Ok(client.request(request.body(body)?).await?)
}

/// The first certificate of a PEM.
fn der(pem: &str) -> Result<Vec<u8>> {
    let base64: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    Ok(data_encoding::BASE64.decode(base64.as_bytes())?)
}
