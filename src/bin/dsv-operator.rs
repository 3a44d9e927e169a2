//! The control plane program: reads its command line, then hands over to the library.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dsv::channel::listener;
use dsv::cluster::rights::{self, Installation};
use dsv::cluster::watched::Namespaces;
use dsv::control::context::Settings;
use dsv::control::operator::{Beside, Operator};
use dsv::control::run::Channel;
use dsv::control::trial::Trial;
use dsv::control::uninstall::Uninstall;
use dsv::plan::sync::destination::Allowed;
use dsv::telemetry::ledger::Ledger;
use dsv::telemetry::logs;
use dsv::telemetry::version::version;
use dsv::vault;
use ipnet::IpNet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(
    version = version(),
    about = "Issues PostgreSQL accounts just in time and takes them back on time."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<RunArguments>),
    /// Print the custom resource definitions.
    Crd {
        /// Write one file per kind into this folder instead of printing.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// End all leases and remove what the operator made, in databases and cluster, while it still runs.
    Uninstall(UninstallArguments),
    /// Have an account issued and taken back, to see that everything works: what `helm test` runs.
    Trial(TrialArguments),
    /// Print the generated files of the Helm chart.
    Chart {
        /// Write them into this chart instead of printing.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the pages on fields and metrics, which are generated.
    Reference {
        /// Write them into this folder instead of printing.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the operator's rights and the admission policies that fence them in.
    Rbac {
        /// The operator's namespace.
        #[arg(long, default_value = "dsv-system")]
        namespace: String,
        /// The operator's ServiceAccount.
        #[arg(long, default_value = "dsv-operator")]
        service_account: String,
        /// Namespaces that are served besides the operator's own, separated by commas: the right to Secrets is then given in
        /// these only.
        #[arg(long, value_delimiter = ',')]
        watch_namespaces: Vec<String>,
        /// Write files into this folder instead of printing.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
struct UninstallArguments {
    /// The operator's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "dsv-system")]
    namespace: String,
    /// Seconds that it may take.
    #[arg(long, env = "DSV_UNINSTALL_TIMEOUT", default_value_t = 600)]
    timeout: u64,
    /// How log lines are written.
    #[arg(long, env = "DSV_LOG_FORMAT", value_enum, default_value_t = logs::Format::Text)]
    log_format: logs::Format,
}

#[derive(Args)]
struct TrialArguments {
    /// Namespace of the DynamicSecret.
    #[arg(long, env = "DSV_TRIAL_NAMESPACE")]
    namespace: String,
    /// Name of a DynamicSecret in mode OnDemand.
    #[arg(long, env = "DSV_TRIAL_DYNAMIC_SECRET")]
    dynamic_secret: String,
    /// Seconds that issuing and taking back may take, each.
    #[arg(long, env = "DSV_TRIAL_TIMEOUT", default_value_t = 120)]
    timeout: u64,
    /// How log lines are written.
    #[arg(long, env = "DSV_LOG_FORMAT", value_enum, default_value_t = logs::Format::Text)]
    log_format: logs::Format,
}

#[derive(Args)]
struct RunArguments {
    /// The operator's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "dsv-system")]
    namespace: String,
    /// Name of this installation in its namespace.
    #[arg(long, env = "DSV_RELEASE", default_value = "dsv")]
    release: String,
    /// Name of this replica; without it that of its pod.
    #[arg(long)]
    identity: Option<String>,
    /// The pod that this process runs in, if any: it is labelled while it leads.
    #[arg(long, env = "POD_NAME")]
    pod: Option<String>,
    /// Address on which engines are listened for.
    #[arg(long, env = "DSV_CHANNEL_ADDR", default_value = "0.0.0.0:8443")]
    channel_addr: String,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "DSV_HEALTH_ADDR", default_value = "0.0.0.0:8080")]
    health_addr: SocketAddr,
    /// Where engines dial: host or host:port; several for several replicas, separated by commas.
    #[arg(long, env = "DSV_ENGINE_ENDPOINT", value_delimiter = ',', required = true)]
    engine_endpoint: Vec<String>,
    /// Image of managed engines.
    #[arg(long, env = "DSV_ENGINE_IMAGE", default_value = concat!("dsv-engine:", env!("CARGO_PKG_VERSION")))]
    engine_image: String,
    /// Namespaces that are served besides the operator's own, separated by commas; without any all are. Outside of them the
    /// operator needs no right to Secrets.
    #[arg(long, env = "DSV_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Most managed engines that one pool may ask for.
    #[arg(long, env = "DSV_MAX_ENGINES_PER_POOL", default_value_t = 10)]
    max_engines_per_pool: i32,
    /// PEM certificate chain for engines' TLS. Without one a certificate is made at each start; engines authenticate the
    /// operator inside the connection in any case.
    #[arg(long, env = "DSV_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM key for engines' TLS.
    #[arg(long, env = "DSV_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Seconds between two audits, which compare the roles in every database with the leases.
    #[arg(long, env = "DSV_AUDIT_EVERY", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    audit_every: u64,
    /// Seconds between two looks at whether a secret is to be pushed to a DSV tenant; no tenant's interval is shorter.
    #[arg(long, env = "DSV_SYNC_PERIOD", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    sync_period: u64,
    /// Networks besides public addresses that secrets may be pushed to, such as 10.20.0.0/16; separated by commas.
    #[arg(long, env = "DSV_SYNC_ALLOW_DESTINATIONS", value_delimiter = ',')]
    sync_allow_destinations: Vec<String>,
    #[command(flatten)]
    api: ApiArguments,
    /// How log lines are written.
    #[arg(long, env = "DSV_LOG_FORMAT", value_enum, default_value_t = logs::Format::Text)]
    log_format: logs::Format,
}

/// The REST API for DSV clients.
#[allow(clippy::struct_field_names, reason = "a flag is called as its field is")]
#[derive(Args)]
struct ApiArguments {
    /// Address of the REST API for DSV clients, such as 0.0.0.0:9443; empty: no API.
    #[arg(long, env = "DSV_API_ADDR", default_value = "")]
    api_addr: String,
    /// Namespace that is the tenant where a client's host names none; others are opened by the label dsv.dev/tenant=true.
    #[arg(long, env = "DSV_API_TENANT")]
    api_tenant: Option<String>,
    /// Names and addresses by which clients reach the API, for its certificate; separated by commas.
    #[arg(
        long,
        env = "DSV_API_NAME",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1"
    )]
    api_name: Vec<String>,
    /// PEM certificate chain of the API. Without one an authority of the installation's own signs one; clients find what to
    /// trust in the Secret dsv-api-ca.
    #[arg(long, env = "DSV_API_TLS_CERT", requires = "api_tls_key")]
    api_tls_cert: Option<PathBuf>,
    /// PEM key of the API.
    #[arg(long, env = "DSV_API_TLS_KEY", requires = "api_tls_cert")]
    api_tls_key: Option<PathBuf>,
    /// File to which a line for each call is appended.
    #[arg(long, env = "DSV_API_AUDIT_FILE")]
    api_audit_file: Option<PathBuf>,
}

impl ApiArguments {
    fn settings(
        self,
        (home, release, served): (&str, &str, &Namespaces),
        endpoints: &[String],
        sync_period: Duration,
    ) -> anyhow::Result<Option<vault::Settings>> {
        if self.api_addr.is_empty() {
            return Ok(None);
        }
        let audit = vault::Audit::new(self.api_audit_file.as_deref());
        let named = || {
            self.api_audit_file
                .iter()
                .map(|path| path.display().to_string())
                .collect::<String>()
        };
        let audit = audit.with_context(|| format!("could not open the audit file {}", named()))?;
        Ok(Some(vault::Settings {
            address: self.api_addr,
            home: home.to_owned(),
            release: release.to_owned(),
            served: served.clone(),
            default_tenant: self.api_tenant.filter(|name| !name.is_empty()),
            endpoints: endpoints.to_vec(),
            names: self.api_name,
            certificate: self.api_tls_cert.zip(self.api_tls_key),
            audit: Arc::new(audit),
            sync_period,
        }))
    }
}

fn main() -> anyhow::Result<()> {
    match arguments().command {
        Command::Run(arguments) => {
            logs::init(arguments.log_format)?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(run(*arguments))
        }
        Command::Uninstall(arguments) => {
            logs::init(arguments.log_format)?;
            once(uninstall(arguments))
        }
        Command::Trial(arguments) => {
            logs::init(arguments.log_format)?;
            once(trial(arguments))
        }
        Command::Chart { dir } => {
            let files: Vec<_> = rights::chart()?.into_iter().map(|m| (m.file, m.yaml)).collect();
            write_all(dir.as_deref(), &files)
        }
        Command::Crd { dir } => {
            let mut files = Vec::new();
            for definition in dsv::api::definitions() {
                files.push((
                    format!("{}.yaml", definition.spec.names.plural),
                    serde_saphyr::to_string(&definition)?,
                ));
            }
            write_all(dir.as_deref(), &files)
        }
        Command::Reference { dir } => write_all(dir.as_deref(), &dsv::reference::pages()?),
        Command::Rbac {
            namespace,
            service_account,
            watch_namespaces,
            dir,
        } => {
            let manifests = rights::manifests(&Installation {
                namespace,
                service_account,
                watch_namespaces,
            })?;
            let mut files: Vec<_> = manifests.into_iter().map(|m| (m.file, m.yaml)).collect();
            // What is printed is piped into kubectl: rights that somebody may want to leave out do not slip in.
            if dir.is_none() {
                files.retain(|(file, _)| !file.starts_with("optional/"));
            }
            write_all(dir.as_deref(), &files)
        }
    }
}

/// Without arguments it is `run`, as the environment says, so that an image needs none.
fn arguments() -> Arguments {
    let mut words: Vec<_> = std::env::args_os().collect();
    if words.len() == 1 {
        words.push("run".into());
    }
    Arguments::parse_from(words)
}

async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    logs::announce("dsv-operator");
    rustls::crypto::ring::default_provider().install_default().ok();
    let identity = arguments
        .identity
        .or_else(|| arguments.pod.clone())
        .unwrap_or_else(|| format!("dsv-operator-{}", std::process::id()));
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => listener::from_files(certificate, key)?,
        _ => listener::self_signed(&host_names(&arguments.engine_endpoint))?,
    };
    let sync_period = Duration::from_secs(arguments.sync_period);
    let served = Namespaces::named(&arguments.watch_namespaces, &arguments.namespace);
    let names = (arguments.namespace.as_str(), arguments.release.as_str(), &served);
    let api = arguments.api.settings(names, &arguments.engine_endpoint, sync_period)?;
    let ledger = api.as_ref().map(|api| {
        let audit = api.audit.clone();
        Ledger::new(move |entry| audit.account(entry))
    });
    let beside = api.map(|api| -> Beside {
        Box::new(move |client, stop| Box::pin(async move { Ok(vault::run(client, api, stop).await?) }))
    });
    let settings = Settings {
        home: arguments.namespace,
        release: arguments.release,
        engine_endpoints: arguments.engine_endpoint,
        engine_image: arguments.engine_image,
        served,
        max_engines_per_pool: arguments.max_engines_per_pool,
        audit_every: Duration::from_secs(arguments.audit_every),
        sync_period,
        sync_allowed: Arc::new(allowed(&arguments.sync_allow_destinations)?),
        pod: arguments.pod,
        ledger: ledger.unwrap_or_default(),
    };
    let operator = Operator {
        identity,
        settings,
        channel: Channel {
            address: arguments.channel_addr,
            tls,
        },
        health: arguments.health_addr,
        beside,
    };
    let token = CancellationToken::new();
    tokio::spawn(cancel_on_signal(token.clone()));
    Ok(operator.run(token).await?)
}

/// Runs what is done once and ends.
fn once(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

async fn client() -> anyhow::Result<kube::Client> {
    let client = kube::Client::try_default().await;
    client.context("could not find the API server; set KUBECONFIG or run in a cluster")
}

async fn uninstall(arguments: UninstallArguments) -> anyhow::Result<()> {
    let limit = Duration::from_secs(arguments.timeout);
    let uninstall = Uninstall::new(client().await?, arguments.namespace, limit);
    Ok(uninstall.run().await?)
}

async fn trial(arguments: TrialArguments) -> anyhow::Result<()> {
    let limit = Duration::from_secs(arguments.timeout);
    let trial = Trial::new(client().await?, arguments.namespace, arguments.dynamic_secret, limit);
    Ok(trial.run().await?)
}

fn allowed(networks: &[String]) -> anyhow::Result<Allowed> {
    let named = networks.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let read = named.map(|text| {
        let network = text.parse::<IpNet>();
        network.with_context(|| format!("--sync-allow-destinations: {text} is no network such as 10.20.0.0/16"))
    });
    Ok(Allowed::new(read.collect::<anyhow::Result<_>>()?))
}

fn host_names(endpoints: &[String]) -> Vec<String> {
    let host = |endpoint: &String| {
        endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |(host, _)| host)
            .to_owned()
    };
    endpoints.iter().map(host).collect()
}

async fn cancel_on_signal(token: CancellationToken) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("asked to stop; leadership is handed over");
    token.cancel();
}

fn write_all(dir: Option<&Path>, files: &[(String, String)]) -> anyhow::Result<()> {
    let Some(dir) = dir else {
        let all: Vec<&str> = files.iter().map(|(_, yaml)| yaml.as_str()).collect();
        return std::io::stdout()
            .write_all(all.join("---\n").as_bytes())
            .context("write to standard output");
    };
    for (name, yaml) in files {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        // In Markdown a line with this mark would be a heading.
        let (open, close) = if name.ends_with(".md") {
            ("<!--", " -->")
        } else {
            ("#", "")
        };
        // JSON has no comments.
        let is_json = name.ends_with(".json");
        let text = if is_json {
            yaml.clone()
        } else {
            format!("{open} Generated by `make crds`; do not edit.{close}\n{yaml}")
        };
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
