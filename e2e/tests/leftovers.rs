//! Nothing of a run outlives it, however it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::control_plane::ControlPlane;
use e2e::postgres::{Major, Options, Server};
use e2e::run_dir::{self, RunDir};

const VICTIM: &str = "a_run_that_waits_for_its_end";

/// Started as a process of its own by the tests below; by itself it does nothing.
#[tokio::test]
async fn a_run_that_waits_for_its_end() {
    if std::env::var_os("E2E_VICTIM").is_none() {
        return;
    }
    let plane = ControlPlane::start().await.unwrap();
    let server = Server::start(Major::of_this_machine(), Options::default())
        .await
        .unwrap();
    let session = server.connect("postgres").await.unwrap();
    eprintln!("folder {}", RunDir::of_this_process().unwrap().path().display());
    eprintln!(
        "folder {}",
        server.log_path().parent().unwrap().parent().unwrap().display()
    );
    eprintln!("ready");
    session.batch_execute("SELECT pg_sleep(600)").await.unwrap();
    drop((plane, server));
}

/// Starts the victim and waits until its servers run; the folders it works in.
fn victim() -> (Child, Vec<PathBuf>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", VICTIM, "--nocapture"])
        .env("E2E_VICTIM", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut folders = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "ready" {
            assert!(
                working_in(&folders) >= 5,
                "etcd, API server, controller manager, PostgreSQL and a session should run"
            );
            return (child, folders);
        }
        folders.extend(line.strip_prefix("folder ").map(PathBuf::from));
    }
    let status = child.wait().unwrap();
    panic!("the victim ended ({status}) before it was ready");
}

/// How many processes have their working directory in one of the folders.
fn working_in(folders: &[PathBuf]) -> usize {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let places = processes.filter_map(|process| fs::read_link(process.join("cwd")).ok());
    places
        .filter(|place| folders.iter().any(|folder| place.starts_with(folder)))
        .count()
}

/// The System V memory segment of the PostgreSQL in one of the folders, as its `postmaster.pid` names it.
fn segment_in(folders: &[PathBuf]) -> String {
    let mut children = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
    let text = children.find_map(|child| fs::read_to_string(child.path().join("data/postmaster.pid")).ok());
    let text = text.expect("a running PostgreSQL has a postmaster.pid");
    text.lines()
        .nth(6)
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned()
}

fn segment_exists(id: &str) -> bool {
    let all = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    all.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
}

fn gone_within(limit: Duration, folders: &[PathBuf]) {
    let start = Instant::now();
    while working_in(folders) > 0 || folders.iter().any(|folder| folder.exists()) {
        assert!(
            start.elapsed() < limit,
            "{} processes are left in {folders:?}",
            working_in(folders)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_killed_run_leaves_nothing() {
    let (mut child, folders) = victim();
    let segment = segment_in(&folders);
    assert!(segment_exists(&segment));
    child.kill().unwrap();
    child.wait().unwrap();
    gone_within(Duration::from_secs(20), &folders);
    assert!(
        !segment_exists(&segment),
        "the memory segment {segment} of the killed PostgreSQL is left"
    );
}

#[test]
fn a_run_killed_together_with_its_watcher_is_swept_by_the_next() {
    let (mut child, folders) = victim();
    for watcher in watchers_of(&folders) {
        Command::new("kill").args(["-9", &watcher]).status().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folders.iter().all(|folder| folder.exists()));
    let next = RunDir::fresh().unwrap();
    gone_within(Duration::ZERO, &folders);
    assert!(run_dir::is_owned(next.path()));
}

/// The shells that hold one of the folders as an argument.
fn watchers_of(folders: &[PathBuf]) -> Vec<String> {
    let is_watcher = |process: &Path| {
        let words = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        words.contains("dsv-sweep") && folders.iter().any(|folder| words.contains(folder.to_str().unwrap()))
    };
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let found: Vec<String> = processes
        .filter(|process| is_watcher(process))
        .map(|process| process.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(!found.is_empty(), "no watcher of {folders:?} runs");
    found
}
