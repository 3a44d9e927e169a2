//! `dsv-engine service`: a registered engine as a unit of systemd. The unit is the one that is packaged; the key is put where
//! root alone reads it.

use super::config::{self, ConfigError, FileSettings};
use super::start::home_file;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The unit as it is packaged.
const UNIT: &str = include_str!("../../packaging/dsv-engine.service");
/// What it is called.
const NAME: &str = "dsv-engine.service";
/// Where its packaged form expects the program.
const PROGRAM: &str = "/usr/local/bin/dsv-engine";
/// Where units, settings and keys of a machine lie.
const ETC: &str = "/etc";
/// There where systemd is the machine's service manager, and only there.
const BOOTED: &str = "/run/systemd/system";

/// Arguments of `dsv-engine service`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ServiceCommand {
    /// Install the registered engine as a service that starts with the machine
    Install {
        /// File of the registration [default: ~/.dsv-engine-config.yml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Stop the service and remove it; settings and key stay
    Uninstall,
    /// Start it
    Start,
    /// Stop it
    Stop,
    /// Stop and start it
    Restart,
    /// Show how it does
    Status,
}

/// Nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another service manager, or none.
    #[error(
        "this machine is not run by systemd, the only service manager that is served; let your own run `dsv-engine run`, as \
         INSTALL.md says"
    )]
    NoSystemd,
    /// The registration.
    #[error("the registration cannot be read")]
    Config(#[from] ConfigError),
    /// No registration.
    #[error("{} holds no registered engine; run `dsv-engine register` first, or name another file with --config", .0.display())]
    Unregistered(PathBuf),
    /// Nowhere to look.
    #[error("there is no home folder to look for a registration in; name its file with --config")]
    Homeless,
    /// A file.
    #[error("{} cannot be written; services are installed by root", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// Where this program lies.
    #[error("it cannot be told where this program lies")]
    Program(#[source] std::io::Error),
    /// systemctl itself.
    #[error("systemctl cannot be run")]
    Systemctl(#[source] std::io::Error),
    /// It said no, and why.
    #[error("systemctl {0} ended with code {1}; what it said stands above")]
    Refused(String, u8),
}

impl ServiceError {
    /// What systemctl ended with, since `status` tells by it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(_, code) => *code,
            _ => 1,
        }
    }
}

/// Runs the command. Returns what is to be said.
pub fn service(args: &ServiceArgs, env: impl Fn(&str) -> Option<String>) -> Result<String, ServiceError> {
    if !Path::new(BOOTED).is_dir() {
        return Err(ServiceError::NoSystemd);
    }
    match &args.command {
        ServiceCommand::Install { config } => install(config.clone(), &env),
        ServiceCommand::Uninstall => uninstall(),
        ServiceCommand::Start => systemctl(&["start", NAME]).map(|()| "started".to_owned()),
        ServiceCommand::Stop => systemctl(&["stop", NAME]).map(|()| "stopped".to_owned()),
        ServiceCommand::Restart => systemctl(&["restart", NAME]).map(|()| "restarted".to_owned()),
        ServiceCommand::Status => systemctl(&["status", "--no-pager", NAME]).map(|()| String::new()),
    }
}

fn install(config: Option<PathBuf>, env: &impl Fn(&str) -> Option<String>) -> Result<String, ServiceError> {
    let path = config.or_else(|| home_file(env)).ok_or(ServiceError::Homeless)?;
    let settings = config::read_file(Some(path.clone()).filter(|path| path.exists()))?;
    let program = std::env::current_exe().and_then(fs::canonicalize);
    let program = program.map_err(ServiceError::Program)?;
    let engine = write_all(Path::new(ETC), &program, &settings, &path)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", NAME])?;
    Ok(format!(
        "engine {engine} is installed as {NAME} and starts with the machine; start it now with: dsv-engine service start"
    ))
}

fn uninstall() -> Result<String, ServiceError> {
    systemctl(&["disable", "--now", NAME])?;
    let unit = Path::new(ETC).join("systemd/system").join(NAME);
    match fs::remove_file(&unit) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(ServiceError::Write(unit, error)),
        _ => {}
    }
    systemctl(&["daemon-reload"])?;
    Ok(format!(
        "{NAME} is removed; settings and key stay in {ETC}/dsv-engine, delete them by hand"
    ))
}

fn systemctl(words: &[&str]) -> Result<(), ServiceError> {
    let status = Command::new("systemctl").args(words).status();
    let status = status.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ServiceError::NoSystemd,
        _ => ServiceError::Systemctl(error),
    })?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(ServiceError::Refused(words.join(" "), code))
}

/// Writes unit, settings and key below `etc`, and returns the engine's name.
fn write_all(etc: &Path, program: &Path, settings: &FileSettings, from: &Path) -> Result<String, ServiceError> {
    let missing = || ServiceError::Unregistered(from.to_owned());
    let engine = settings.engine_name.clone().ok_or_else(missing)?;
    let endpoint = settings.endpoint.clone().ok_or_else(missing)?;
    let key = settings.private_key.clone().ok_or_else(missing)?;
    let own = etc.join("dsv-engine");
    let units = etc.join("systemd/system");
    for folder in [&own, &units] {
        fs::create_dir_all(folder).map_err(|error| ServiceError::Write(folder.clone(), error))?;
    }
    let mut lines = format!("DSV_ENDPOINT={endpoint}\nENGINE_NAME={engine}\n");
    if let Some(authority) = &settings.ca_file {
        // The service runs as a user of its own and sees no home.
        let copy = own.join("ca.pem");
        let text = fs::read(authority).map_err(|error| ServiceError::Write(authority.clone(), error))?;
        write(&copy, &text, 0o644)?;
        lines.extend(["DSV_CA_FILE=".to_owned(), copy.display().to_string(), "\n".to_owned()]);
    }
    write(&own.join("engine.env"), lines.as_bytes(), 0o644)?;
    write(&own.join("engine.key"), key.reveal().as_bytes(), 0o600)?;
    write(&units.join(NAME), unit(program).as_bytes(), 0o644)?;
    Ok(engine)
}

/// The packaged unit for a program that lies elsewhere.
fn unit(program: &Path) -> String {
    let path = program.display().to_string().replace('%', "%%");
    let path = if path.contains(char::is_whitespace) {
        format!("\"{path}\"")
    } else {
        path
    };
    UNIT.replace(&format!("ExecStart={PROGRAM}"), &format!("ExecStart={path}"))
}

/// Written beside and renamed, so that nobody ever sees half of it, or a key that others may read.
fn write(path: &Path, data: &[u8], mode: u32) -> Result<(), ServiceError> {
    let beside = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(data)?;
        file.sync_all()?;
        // The mode above is narrowed by the umask.
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        fs::rename(&beside, path)
    };
    written().map_err(|error| ServiceError::Write(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretText;

    fn registered() -> FileSettings {
        FileSettings {
            endpoint: Some("engines.example.com".into()),
            engine_name: Some("dc-1".into()),
            private_key: Some(SecretText::new("dsvk1.secret")),
            ..FileSettings::default()
        }
    }

    #[test]
    fn the_service_gets_what_was_registered_and_root_alone_reads_the_key() {
        let etc = std::env::temp_dir().join(format!("dsv-service-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&etc).unwrap();
        let authority = etc.join("authority.pem");
        fs::write(&authority, "PEM").unwrap();
        let settings = FileSettings {
            ca_file: Some(authority),
            ..registered()
        };
        let program = Path::new("/opt/dsv engine/dsv-engine");
        // Twice: an installation again is one of the newest registration.
        for _ in 0..2 {
            assert_eq!(write_all(&etc, program, &settings, Path::new("f")).unwrap(), "dc-1");
        }
        let read = |path: &str| fs::read_to_string(etc.join(path)).unwrap();
        let own = etc.join("dsv-engine").display().to_string();
        assert_eq!(
            read("dsv-engine/engine.env"),
            format!("DSV_ENDPOINT=engines.example.com\nENGINE_NAME=dc-1\nDSV_CA_FILE={own}/ca.pem\n")
        );
        assert_eq!(read("dsv-engine/engine.key"), "dsvk1.secret");
        assert_eq!(read("dsv-engine/ca.pem"), "PEM");
        let mode = |path: &str| fs::metadata(etc.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("dsv-engine/engine.key"), mode("dsv-engine/engine.env")),
            (0o600, 0o644)
        );
        let unit = read("systemd/system/dsv-engine.service");
        assert!(unit.contains("ExecStart=\"/opt/dsv engine/dsv-engine\"\n"), "{unit}");
        // What the unit reads is what was written.
        for path in ["/etc/dsv-engine/engine.env", "key:/etc/dsv-engine/engine.key"] {
            assert!(unit.contains(path), "{unit}");
        }
        assert!(!unit.contains("dsvk1"));
        fs::remove_dir_all(etc).unwrap();
    }

    #[test]
    fn without_a_registration_nothing_is_written() {
        let nowhere = Path::new("/nonexistent-etc");
        let empty = FileSettings::default();
        let error = write_all(nowhere, Path::new("/x"), &empty, Path::new("/a/file")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/a/file") && text.contains("dsv-engine register"),
            "{text}"
        );
        assert!(unit(Path::new(PROGRAM)) == UNIT);
    }
}
