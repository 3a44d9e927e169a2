//! A standby of a running server.

use super::Server;
use crate::ports;
use crate::process::Spec;
use crate::service::Service;
use anyhow::{Result, bail};
use postgres_protocol::escape::escape_literal;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::Arc;

impl Server {
    /// A hot standby of this one, with the same logins and a port of its own. The server is down for a moment: its files
    /// are copied, since not every release that we have brings pg_basebackup.
    pub async fn standby(&self) -> Result<Self> {
        let dir = self
            .run
            .subfolder_for(&format!("postgres-{}-standby", self.major()), self.account)?;
        let program = self.programs.bin.join("postgres");
        let spec = Spec::new("postgres", program, &dir)
            .args(["-D", "data"])
            .account(self.account);
        let standby = Self {
            service: Service::new(spec),
            programs: self.programs.clone(),
            account: self.account,
            dir,
            port: ports::free()?,
            tls: self.tls,
            authority: self.authority.clone(),
            superuser: self.superuser.clone(),
            disk: None,
            run: Arc::clone(&self.run),
        };
        self.stop();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.data())
            .arg(standby.data())
            .status()?;
        self.restart().await?;
        if !copied.success() {
            bail!("the files of the server could not be copied: {copied}");
        }
        let _ = fs::remove_file(standby.data().join("postmaster.pid"));
        let from = escape_literal(&self.superuser_dsn("postgres"));
        let mut text = fs::read_to_string(standby.data().join("postgresql.conf"))?;
        writeln!(
            text,
            "port = {}\nhot_standby = on\nprimary_conninfo = {}",
            standby.port,
            from.trim_start()
        )?;
        fs::write(standby.data().join("postgresql.conf"), text)?;
        let signal = standby.data().join("standby.signal");
        fs::write(&signal, "")?;
        standby.hand_over(&signal)?;
        standby.service.launch()?;
        standby.wait_ready().await?;
        Ok(standby)
    }
}
