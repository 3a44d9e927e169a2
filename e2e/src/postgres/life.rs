//! How a server dies and comes back.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{POLL, READY_LIMIT, Server};

impl Server {
    /// `kill -9` of the main process, as the kernel does when memory runs out. Its sessions end by themselves.
    pub fn kill9(&self) {
        self.service.kill9();
    }

    /// Stops all its processes where they are: connections stay open, new ones are taken by the kernel, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::SIGCONT)
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let main = self.pid().context("the server does not run")?;
        // The main process first: it starts no other meanwhile.
        kill(Pid::from_raw(main), signal)?;
        for child in children(main)? {
            // One that ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(child), signal);
        }
        Ok(())
    }

    /// Starts a stopped or killed server again: same data, port and logins.
    pub async fn restart(&self) -> Result<()> {
        self.stop();
        let start = Instant::now();
        loop {
            self.service.launch()?;
            match self.wait_ready().await {
                Ok(()) => return Ok(()),
                // After kill -9 the new server refuses to start until the last session of the old one is gone.
                Err(_) if start.elapsed() < READY_LIMIT && !self.service.is_running() => {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts it again as a server that was promoted: the same data and system identifier on a new timeline.
    pub async fn restart_on_a_new_timeline(&self) -> Result<()> {
        self.stop();
        let auto = self.data().join("postgresql.auto.conf");
        fs::write(&auto, "restore_command = 'false'\n")?;
        let signal = self.data().join("recovery.signal");
        fs::write(&signal, "")?;
        self.hand_over(&auto)?;
        self.hand_over(&signal)?;
        self.restart().await
    }

    /// Copies its files, as a base backup does. It is down meanwhile.
    pub async fn back_up(&self) -> Result<()> {
        self.stop();
        let copied = self.copy("data", "backup");
        self.restart().await?;
        copied
    }

    /// Puts back what [`Server::back_up`] copied, on a new timeline: everything since is forgotten.
    pub async fn restore_backup(&self) -> Result<()> {
        self.stop();
        fs::remove_dir_all(self.data())?;
        self.copy("backup", "data")?;
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        self.restart_on_a_new_timeline().await
    }

    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let copied = Command::new("cp")
            .arg("-a")
            .args([self.dir.join(from), self.dir.join(to)])
            .status()?;
        ensure!(
            copied.success(),
            "the files of the server could not be copied: {copied}"
        );
        Ok(())
    }
}

/// Processes that another one started, by proc(5) `stat`: after the name in brackets come the state and the parent.
fn children(parent: i32) -> Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let of = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        if of == Some(parent.to_string().as_str()) {
            children.push(pid);
        }
    }
    Ok(children)
}
