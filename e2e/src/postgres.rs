//! Real PostgreSQL servers on loopback: scram-sha-256 only, every statement in a log file, TLS by an authority of our own.

mod disk;
mod life;
mod standby;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::certificates::{Authority, write_private};
use crate::places::Account;
use crate::ports;
use crate::process::{Process, Spec};
use crate::programs::{self, PostgresPrograms};
use crate::run_dir::RunDir;
use crate::service::Service;
use disk::Disk;

pub use crate::programs::Major;

const READY_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
pub const SUPERUSER: &str = "postgres";

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tls {
    /// The server cannot do TLS.
    #[default]
    Off,
    /// The server can, and takes plain connections as well.
    Offered,
    /// Plain connections are refused.
    Required,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub tls: Tls,
    /// Further lines of `postgresql.conf`; they win over ours.
    pub settings: Vec<(String, String)>,
    /// The data lies on a disk of its own, of so many MiB; only root can have one.
    pub disk_mib: Option<u32>,
}

/// A login of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    service: Service,
    programs: PostgresPrograms,
    account: Account,
    dir: PathBuf,
    port: u16,
    tls: Tls,
    /// PEM of the authority behind the server's certificate.
    authority: String,
    superuser: Login,
    disk: Option<Disk>,
    run: Arc<RunDir>,
}

impl Server {
    /// Starts one in the run folder of this process.
    pub async fn start(major: Major, options: Options) -> Result<Self> {
        Self::start_in(RunDir::of_this_process()?, major, options).await
    }

    pub async fn start_in(run: Arc<RunDir>, major: Major, options: Options) -> Result<Self> {
        Self::start_at(run, major, options, None).await
    }

    /// One that listens elsewhere than on loopback too: at an address, which has a name in the server's certificate.
    pub async fn start_at(
        run: Arc<RunDir>,
        major: Major,
        options: Options,
        also: Option<(Ipv4Addr, &'static str)>,
    ) -> Result<Self> {
        let server = tokio::task::spawn_blocking(move || Self::prepare(run, major, &options, also)).await??;
        server.service.launch()?;
        server.wait_ready().await?;
        Ok(server)
    }

    fn prepare(
        run: Arc<RunDir>,
        major: Major,
        options: &Options,
        also: Option<(Ipv4Addr, &'static str)>,
    ) -> Result<Self> {
        let account = Account::for_postgres();
        let programs = programs::postgres(major, account)?;
        let dir = run.subfolder_for(&format!("postgres-{major}"), account)?;
        let small = options.disk_mib.map(|mib| Disk::mount(&dir.join("data"), mib, account));
        let superuser = Login {
            user: SUPERUSER.to_owned(),
            password: random_password(),
        };
        let authority = Authority::new("dsv-e2e-postgres")?;
        let program = programs.bin.join("postgres");
        let spec = Spec::new("postgres", program, &dir)
            .args(["-D", "data"])
            .account(account);
        let server = Self {
            service: Service::new(spec),
            programs,
            account,
            dir,
            port: ports::free()?,
            tls: options.tls,
            authority: authority.pem().to_owned(),
            superuser,
            disk: small.transpose()?,
            run,
        };
        server.init_db()?;
        let (address, name) = also.unzip();
        let addresses: Vec<_> = address.map(Into::into).into_iter().collect();
        authority
            .server("postgres", name.as_slice(), &addresses)?
            .write(&server.data(), "server")?;
        for file in ["server.crt", "server.key"] {
            server.hand_over(&server.data().join(file))?;
        }
        server.configure(&options.settings, address)?;
        Ok(server)
    }

    fn init_db(&self) -> Result<()> {
        let password = self.dir.join("superuser-password");
        write_private(&password, &self.superuser.password)?;
        self.hand_over(&password)?;
        let args = [
            "--pgdata=data",
            "--username=postgres",
            "--pwfile=superuser-password",
            "--auth=scram-sha-256",
        ];
        let more = ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"];
        let initdb = self.programs.bin.join("initdb");
        let spec = Spec::new("initdb", initdb, &self.dir)
            .args(args)
            .args(more)
            .account(self.account);
        Process::run(&spec)?;
        Ok(fs::remove_file(password)?)
    }

    fn configure(&self, settings: &[(String, String)], also: Option<Ipv4Addr>) -> Result<()> {
        let ssl = if self.tls == Tls::Off { "off" } else { "on" };
        let port = self.port.to_string();
        let listen = also.map_or_else(|| "127.0.0.1".to_owned(), |also| format!("127.0.0.1,{also}"));
        let ours = [
            ("listen_addresses", listen.as_str()),
            ("port", &port),
            // Loopback only: a socket file would need a short path and could be left behind.
            ("unix_socket_directories", ""),
            ("password_encryption", "scram-sha-256"),
            ("ssl", ssl),
            ("log_statement", "all"),
            ("log_connections", "on"),
            ("log_disconnections", "on"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("max_connections", "200"),
            // Memory segments in the data folder instead of /dev/shm, where a killed server would leave them.
            ("dynamic_shared_memory_type", "mmap"),
            // Commits survive the death of the server, which tests cause; not that of the machine.
            ("fsync", "off"),
        ];
        let mut text = fs::read_to_string(self.data().join("postgresql.conf"))?;
        let given = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in ours.into_iter().chain(given) {
            writeln!(text, "{name} = {}", escape_literal(value).trim_start())?;
        }
        fs::write(self.data().join("postgresql.conf"), text)?;
        let kind = if self.tls == Tls::Required { "hostssl" } else { "host" };
        let mut rules =
            format!("{kind} all all 127.0.0.1/32 scram-sha-256\n{kind} replication all 127.0.0.1/32 scram-sha-256\n");
        if also.is_some() {
            writeln!(rules, "{kind} all all 0.0.0.0/0 scram-sha-256")?;
        }
        Ok(fs::write(self.data().join("pg_hba.conf"), rules)?)
    }

    async fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.connect("postgres").await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.service.check()?;
                    if start.elapsed() > READY_LIMIT {
                        bail!(
                            "PostgreSQL {} does not answer after {READY_LIMIT:?}: {error:#}\n{}",
                            self.major(),
                            self.log_tail(40)
                        );
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        if !self.account.is_ours() {
            chown(path, Some(self.account.uid), Some(self.account.gid))?;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn major(&self) -> Major {
        self.programs.major
    }

    /// Always 127.0.0.1.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Option<i32> {
        self.service.pid()
    }

    pub fn tls(&self) -> Tls {
        self.tls
    }

    /// PEM to put into `ca.crt` of a base secret.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn superuser(&self) -> &Login {
        &self.superuser
    }

    /// How to connect to `database` as `login`: with TLS and verified whenever the server can.
    pub fn config(&self, login: &Login, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host(self.host())
            .port(self.port)
            .user(&login.user)
            .password(&login.password)
            .dbname(database);
        config.ssl_mode(if self.tls == Tls::Off {
            SslMode::Disable
        } else {
            SslMode::Require
        });
        config.application_name("e2e").connect_timeout(Duration::from_secs(10));
        config
    }

    /// Connection string of the superuser.
    pub fn superuser_dsn(&self, database: &str) -> String {
        let Login { user, password } = &self.superuser;
        format!(
            "host={} port={} user={user} password={password} dbname={database}",
            self.host(),
            self.port
        )
    }

    /// A session of the superuser.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        self.connect_as(&self.superuser, database).await
    }

    /// A session of `login`. It ends when the client is dropped.
    pub async fn connect_as(&self, login: &Login, database: &str) -> Result<Client> {
        self.open(&self.config(login, database)).await
    }

    /// A session as `config` says; errors stay those of tokio-postgres, so that tests can look at the SQLSTATE.
    pub async fn open(&self, config: &Config) -> Result<Client> {
        if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let (client, connection) = config.connect(tls_connector(&self.authority)?).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// An administrative login as production has it: no superuser, may make roles and end their sessions. The statement
    /// carries a verifier, so the password is in no log.
    pub async fn create_issuer(&self, name: &str, password: &str) -> Result<Login> {
        let user = escape_identifier(name);
        let verifier = escape_literal(&postgres_protocol::password::scram_sha_256(password.as_bytes()));
        let client = self.connect("postgres").await?;
        client
            .batch_execute(&format!(
                "CREATE ROLE {user} LOGIN NOSUPERUSER CREATEROLE PASSWORD {verifier}"
            ))
            .await?;
        client
            .batch_execute(&format!("GRANT pg_signal_backend TO {user}"))
            .await?;
        Ok(Login {
            user: name.to_owned(),
            password: password.to_owned(),
        })
    }

    pub async fn create_database(&self, name: &str) -> Result<()> {
        let client = self.connect("postgres").await?;
        Ok(client
            .batch_execute(&format!("CREATE DATABASE {}", escape_identifier(name)))
            .await?)
    }

    /// Everything the server has logged since it was made: each statement, connection and error.
    pub fn log_text(&self) -> String {
        self.service.log_text()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        self.service.log_tail(lines)
    }

    pub fn log_path(&self) -> &Path {
        self.service.log_path()
    }

    /// Ends all sessions and the server, in good order.
    pub fn stop(&self) {
        self.service.end(Signal::SIGINT, STOP_LIMIT);
    }

    /// SIGSTOP freezes the main process (new connections hang), SIGCONT ends that, SIGHUP reads the settings again.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.service.signal(signal)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        drop(self.disk.take());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn tls_connector(authority: &str) -> Result<MakeRustlsConnect> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("the authority is no PEM certificate")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// 32 letters and digits from the system's random numbers.
pub fn random_password() -> String {
    data_encoding::BASE32_NOPAD.encode(&rand::random::<[u8; 20]>())
}
