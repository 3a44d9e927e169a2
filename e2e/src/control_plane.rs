//! A Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager on loopback, with RBAC.
//!
//! There is no node: pods are accepted and stay Pending. Everything that the API server and its controllers do is real.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::Signal;
use rcgen::KeyPair;

use crate::certificates::{Authority, Signed, write_private};
use crate::kubeconfig::Endpoint;
use crate::node::joining;
use crate::ports;
use crate::process::Spec;
use crate::programs::{self, Cluster};
use crate::run_dir::RunDir;
use crate::service::Service;

const READY_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// The first address of the service range; the API server is reachable there from inside a cluster.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Go's collector runs four times less often: memory is there, and processor time is what the tests wait for.
const LAZY: (&str, &str) = ("GOGC", "400");

/// Writes of people and programs and every request of the operator, without bodies; the cluster's own components are left out.
const AUDIT_POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[
  {"level":"None","users":["system:apiserver","system:kube-controller-manager"]},
  {"level":"None","userGroups":["system:serviceaccounts:kube-system"]},
  {"level":"Metadata","users":["system:serviceaccount:dsv-system:dsv-operator"]},
  {"level":"Metadata","verbs":["create","update","patch","delete","deletecollection"]},
  {"level":"None"}]}"#;

/// The running control plane. Dropping it ends its processes.
pub struct ControlPlane {
    // In the order in which they end: first who writes, last who stores.
    controller_manager: Service,
    apiserver: Service,
    etcd: Service,
    dir: PathBuf,
    programs: Cluster,
    endpoint: Endpoint,
    _run: Arc<RunDir>,
}

impl ControlPlane {
    /// Starts one in the run folder of this process.
    pub async fn start() -> Result<Self> {
        Self::start_in(RunDir::of_this_process()?).await
    }

    pub async fn start_in(run: Arc<RunDir>) -> Result<Self> {
        Self::start_for(run, None).await
    }

    /// With an address of this machine a node can join there.
    pub async fn start_for(run: Arc<RunDir>, node: Option<Ipv4Addr>) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(programs::cluster).await??;
        let dir = run.subfolder("control-plane")?;
        let files = Files::write(&dir, node)?;
        let etcd_port = ports::free()?;
        let apiserver = apiserver(&programs, &dir, etcd_port, files.port);
        let manager = controller_manager(&programs, &dir);
        let (apiserver, manager) = match node {
            Some(address) => (
                apiserver.args(joining::apiserver(address)),
                manager.args(joining::controller_manager()),
            ),
            None => (apiserver, manager),
        };
        let plane = Self {
            etcd: Service::new(etcd(&programs, &dir, etcd_port)?),
            apiserver: Service::new(apiserver),
            controller_manager: Service::new(manager),
            dir,
            programs,
            endpoint: files.endpoint,
            _run: run,
        };
        plane.etcd.launch()?;
        plane.apiserver.launch()?;
        // The controller manager gives up after ten seconds, and before the API server has made its first roles it may not
        // even ask whether that one is healthy: on a busy machine it would end.
        let first = [&plane.etcd, &plane.apiserver];
        plane.wait_for(&first, &["/readyz"]).await?;
        plane.controller_manager.launch()?;
        plane.wait_ready().await?;
        Ok(plane)
    }

    /// Kubeconfig of the cluster's administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    pub fn kubectl(&self) -> PathBuf {
        self.programs.kubectl()
    }

    /// Folder with its certificates and kubeconfigs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A client with the administrator's rights. It belongs to the calling runtime, so every test makes its own.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig()).await
    }

    /// A bearer token of a ServiceAccount, valid for a day.
    pub async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        token(self.client().await?, namespace, account).await
    }

    /// Every write that went through the API server and every request of the operator, one JSON event a line, the cluster's own
    /// components left out. A watch is in it when it begins and again when it ends.
    pub fn audit_log(&self) -> String {
        fs::read_to_string(self.dir.join("audit.log")).unwrap_or_default()
    }

    /// Each can be signalled, killed and launched again; a frozen API server (SIGSTOP) is a cluster under a network fault.
    pub fn services(&self) -> [&Service; 3] {
        [&self.etcd, &self.apiserver, &self.controller_manager]
    }

    pub fn apiserver(&self) -> &Service {
        &self.apiserver
    }

    /// Ends the API server, if it runs, and starts it again on the same port with the same data.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.apiserver.end(Signal::SIGTERM, Duration::from_secs(5));
        self.apiserver.launch()?;
        self.wait_ready().await
    }

    /// Copies what etcd holds into a folder, with everything stopped meanwhile.
    pub async fn back_up(&self, folder: &Path) -> Result<()> {
        self.offline(|| copy(&self.dir.join("etcd"), folder)).await
    }

    /// Puts back what [`ControlPlane::back_up`] copied: everything written since is forgotten. Versions are counted on from
    /// there, so whoever watches sees time go back, as after a real restore without a bumped revision.
    pub async fn restore(&self, folder: &Path) -> Result<()> {
        self.offline(|| {
            fs::remove_dir_all(self.dir.join("etcd"))?;
            copy(folder, &self.dir.join("etcd"))
        })
        .await
    }

    async fn offline(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        for service in [&self.controller_manager, &self.apiserver, &self.etcd] {
            service.end(Signal::SIGTERM, Duration::from_secs(5));
        }
        let done = work();
        for service in [&self.etcd, &self.apiserver, &self.controller_manager] {
            service.launch()?;
        }
        self.wait_ready().await?;
        done
    }

    /// Ready when the API server says so and the controller manager has made the default service account, without
    /// which no pod could be made.
    async fn wait_ready(&self) -> Result<()> {
        let paths = [
            "/readyz",
            "/api/v1/namespaces/default/serviceaccounts/default",
            "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
        ];
        self.wait_for(&self.services(), &paths).await
    }

    /// Waits until the API server gives all of these; an error at once where one of the services has ended.
    async fn wait_for(&self, services: &[&Service], paths: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            for service in services {
                service.check()?;
            }
            match self.gives(paths).await {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > READY_LIMIT => {
                    let log = self.apiserver.log_tail(40);
                    return Err(error.context(format!(
                        "the API server is not ready after {READY_LIMIT:?}; the end of its log:\n{log}"
                    )));
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn gives(&self, paths: &[&str]) -> Result<()> {
        let client = self.client().await?;
        for path in paths {
            client.request_text(http_get(path)?).await?;
        }
        Ok(())
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// A client from a kubeconfig file, without looking at the environment.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    // Two providers could be compiled in by other crates; then rustls wants to be told.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// A bearer token of a ServiceAccount, valid for a day.
pub async fn token(client: Client, namespace: &str, account: &str) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await;
    let answer = answer.with_context(|| format!("cannot get a token of ServiceAccount {namespace}/{account}"))?;
    Ok(answer.status.context("the API server answered without a token")?.token)
}

/// Runs kubectl as the user of `kubeconfig`; the answer is its standard output, a failure carries its standard error.
pub fn run_kubectl(kubectl: &Path, kubeconfig: &Path, args: &[&str], input: Option<&str>) -> Result<String> {
    use std::io::Write;
    let mut command = Command::new(kubectl);
    command
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy");
    // Discovery answers are cached below the home folder by host and port; ports are used again by other clusters.
    command.env("KUBECACHEDIR", kubeconfig.with_extension("cache"));
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run kubectl")?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "`kubectl {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

struct Files {
    endpoint: Endpoint,
    port: u16,
}

impl Files {
    fn write(dir: &Path, node: Option<Ipv4Addr>) -> Result<Self> {
        let authority = Authority::new("dsv-e2e")?;
        fs::write(dir.join("ca.crt"), authority.pem())?;
        fs::write(dir.join("audit-policy.json"), AUDIT_POLICY)?;
        let tokens = KeyPair::generate()?;
        write_private(&dir.join("service-accounts.key"), &tokens.serialize_pem())?;
        fs::write(dir.join("service-accounts.pub"), tokens.public_key_pem())?;
        authority.server("etcd", &[], &[])?.write(dir, "etcd")?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let addresses: Vec<_> = [SERVICE_ADDRESS].into_iter().chain(node).map(Into::into).collect();
        authority
            .server("kube-apiserver", &names, &addresses)?
            .write(dir, "apiserver")?;
        let port = ports::free()?;
        let endpoint = Endpoint {
            url: format!("https://127.0.0.1:{port}"),
            authority: authority.pem().to_owned(),
        };
        let user = |file: &str, signed: Signed| endpoint.with_certificate(&dir.join(file), &signed);
        user(
            "admin.kubeconfig",
            authority.client("dsv-admin", Some("system:masters"))?,
        )?;
        user(
            "controller-manager.kubeconfig",
            authority.client("system:kube-controller-manager", None)?,
        )?;
        if let Some(address) = node {
            joining::write(&authority, &endpoint, dir, address)?;
        }
        Ok(Self { endpoint, port })
    }
}

fn etcd(programs: &Cluster, dir: &Path, port: u16) -> Result<Spec> {
    let (client, peer) = (
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", ports::free()?),
    );
    Ok(Spec::new("etcd", programs.etcd(), dir).env(LAZY.0, LAZY.1).args([
        "--name=local".to_owned(),
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=local={peer}"),
        "--cert-file=etcd.crt".to_owned(),
        "--key-file=etcd.key".to_owned(),
        "--trusted-ca-file=ca.crt".to_owned(),
        "--client-cert-auth".to_owned(),
        // The data does not have to survive the machine, only the process.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]))
}

fn apiserver(programs: &Cluster, dir: &Path, etcd_port: u16, port: u16) -> Spec {
    let etcd = format!("--etcd-servers=https://127.0.0.1:{etcd_port}");
    let port = format!("--secure-port={port}");
    let args: [&str; 24] = [
        &etcd,
        "--etcd-cafile=ca.crt",
        "--etcd-certfile=etcd.crt",
        "--etcd-keyfile=etcd.key",
        &port,
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--client-ca-file=ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-key-file=service-accounts.pub",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--profiling=false",
        "--audit-policy-file=audit-policy.json",
        "--audit-log-path=audit.log",
        "--audit-log-mode=blocking",
        // In megabytes: what is counted must not be moved away at the usual hundred.
        "--audit-log-maxsize=4096",
        "--v=0",
    ];
    Spec::new("kube-apiserver", programs.apiserver(), dir)
        .env(LAZY.0, LAZY.1)
        .args(args.map(OsString::from))
}

fn controller_manager(programs: &Cluster, dir: &Path) -> Spec {
    let args = [
        "--kubeconfig=controller-manager.kubeconfig",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=ca.crt",
        "--secure-port=0",
        // Its own limit of 20 requests a second would make the start three times as long.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
        "--v=0",
    ];
    Spec::new("kube-controller-manager", programs.controller_manager(), dir)
        .env(LAZY.0, LAZY.1)
        .args(args)
}
