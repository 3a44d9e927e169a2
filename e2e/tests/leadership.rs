//! Leadership against a real API server: one leads, the next follows, and never do two act at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dsv::cluster::leadership::{ACTING, Leader, Leadership, Standing, Term};
use e2e::control_plane::{self, ControlPlane};
use e2e::say::say;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

const VICTIM: &str = "a_candidate_in_a_process_of_its_own";

/// A candidate on a runtime of its own, which can be frozen as a starved process is.
struct Contender {
    name: &'static str,
    leader: Leader,
    standing: tokio::sync::watch::Receiver<Standing>,
    token: CancellationToken,
    orders: mpsc::Sender<Order>,
    thread: thread::JoinHandle<()>,
}

enum Order {
    Freeze(Duration),
    Drop,
}

impl Contender {
    fn start(kubeconfig: PathBuf, namespace: &str, name: &'static str) -> Self {
        let (namespace, token) = (namespace.to_owned(), CancellationToken::new());
        let (orders, inbox) = mpsc::channel();
        let (started, handles) = mpsc::channel();
        let cancelled = token.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let client = control_plane::client(&kubeconfig).await.unwrap();
                let leadership = Leadership::start(client, &namespace, name, cancelled.clone());
                started.send((leadership.handle(), leadership.watch())).unwrap();
                while !cancelled.is_cancelled() {
                    match inbox.try_recv() {
                        Ok(Order::Freeze(time)) => thread::sleep(time),
                        Ok(Order::Drop) => return,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                leadership.ended().await;
            });
        });
        let (leader, standing) = handles.recv().unwrap();
        Self {
            name,
            leader,
            standing,
            token,
            orders,
            thread,
        }
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    fn number(&self) -> Option<i64> {
        self.leader.acting().map(|term| term.number)
    }

    async fn stop(self) {
        self.token.cancel();
        tokio::task::spawn_blocking(|| self.thread.join().unwrap())
            .await
            .unwrap();
    }
}

/// Asks all candidates again and again who acts.
struct Watcher {
    over: Arc<AtomicBool>,
    leaders: Arc<Mutex<Vec<Leader>>>,
    seen: Arc<Mutex<Vec<Term>>>,
    thread: thread::JoinHandle<()>,
}

impl Watcher {
    fn start(candidates: &[&Contender]) -> Self {
        let leaders: Vec<Leader> = candidates.iter().map(|c| c.leader.clone()).collect();
        let seen = Mutex::new(Vec::new());
        look(&leaders, &seen);
        let leaders = Arc::new(Mutex::new(leaders));
        let all = leaders.clone();
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(seen));
        let (stop, terms) = (over.clone(), seen.clone());
        let thread = thread::spawn(move || {
            loop {
                // One more look after the end, so that what was true then is seen.
                let last = stop.load(Ordering::Relaxed);
                look(&all.lock().unwrap(), &terms);
                if last {
                    return;
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
        Self {
            over,
            leaders,
            seen,
            thread,
        }
    }

    fn also(&self, candidate: &Contender) {
        self.leaders.lock().unwrap().push(candidate.leader.clone());
    }

    /// Ends the watch; panics if ever two acted, or a term did not grow. The terms in their order.
    fn end(self) -> Vec<i64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("two candidates acted at once");
        let seen = self.seen.lock().unwrap();
        let numbers: Vec<i64> = seen.iter().map(|term| term.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
        numbers
    }
}

fn look(leaders: &[Leader], seen: &Mutex<Vec<Term>>) {
    for (at, leader) in leaders.iter().enumerate() {
        let Some(term) = leader.acting() else { continue };
        for (other, rival) in leaders.iter().enumerate().filter(|(other, _)| *other != at) {
            // Whoever acts before and after the rival was asked acted at that moment.
            let rivals = rival.acting();
            let still = leader.check(term.number).is_ok();
            assert!(
                rivals.is_none() || !still,
                "{at} and {other} act at once: {term:?} {rivals:?}"
            );
        }
        let mut seen = seen.lock().unwrap();
        if seen.last() != Some(&term) {
            seen.push(term);
        }
    }
}

async fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = start.elapsed();
    say(format!("{what}: {took:?}"));
    took
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Two candidates in a namespace of their own; the first of the pair leads.
async fn pair(plane: &ControlPlane, namespace: &str, names: [&'static str; 2]) -> (Contender, Contender) {
    make_namespace(plane, namespace).await;
    let first = Contender::start(plane.kubeconfig(), namespace, names[0]);
    let second = Contender::start(plane.kubeconfig(), namespace, names[1]);
    within(seconds(3), &format!("{namespace}: one leads"), || {
        first.number().is_some() || second.number().is_some()
    })
    .await;
    if first.number().is_some() {
        (first, second)
    } else {
        (second, first)
    }
}

async fn make_namespace(plane: &ControlPlane, name: &str) {
    let api: Api<Namespace> = Api::all(plane.client().await.unwrap());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    api.create(&PostParams::default(), &namespace).await.unwrap();
}

async fn record(plane: &ControlPlane, namespace: &str) -> Lease {
    let api: Api<Lease> = Api::namespaced(plane.client().await.unwrap(), namespace);
    api.get("dsv-operator").await.unwrap()
}

async fn given_up_leadership_is_taken_within_three_seconds(plane: &ControlPlane) {
    let (mut leader, mut follower) = pair(plane, "given-up", ["a", "b"]).await;
    let watcher = Watcher::start(&[&leader, &follower]);
    for _ in 0..3 {
        assert!(leader.leader.check(leader.number().unwrap() - 1).is_err());
        let (kubeconfig, name) = (plane.kubeconfig(), leader.name);
        leader.token.cancel();
        assert_eq!(leader.number(), None, "acting ends before the record is given up");
        within(seconds(3), "given-up: the other leads", || follower.number().is_some()).await;
        leader.stop().await;
        leader = follower;
        // The same name comes back, as a restarted pod does; it follows.
        follower = Contender::start(kubeconfig, "given-up", name);
        watcher.also(&follower);
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(follower.number(), None);
    }
    assert_eq!(
        *leader.standing.borrow(),
        Standing::Leading(leader.leader.acting().unwrap())
    );
    assert_eq!(watcher.end().len(), 4);
    follower.stop().await;
    leader.stop().await;
    let spec = record(plane, "given-up").await.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref().unwrap_or_default(), "");
    assert_eq!(spec.lease_duration_seconds, Some(1));
}

async fn a_frozen_leader_stops_acting_and_is_replaced(plane: &ControlPlane) {
    let (old, new) = pair(plane, "frozen", ["a", "b"]).await;
    let watcher = Watcher::start(&[&old, &new]);
    let frozen = Instant::now();
    old.order(Order::Freeze(seconds(18)));
    within(ACTING + seconds(1), "frozen: the old one acts no more", || {
        old.number().is_none()
    })
    .await;
    within(seconds(15), "frozen: the other leads", || new.number().is_some()).await;
    assert!(frozen.elapsed() < seconds(15), "{:?}", frozen.elapsed());
    tokio::time::sleep(seconds(20).saturating_sub(frozen.elapsed())).await;
    assert_eq!(old.number(), None, "awake again, it follows");
    assert_eq!(*old.standing.borrow(), Standing::Following);
    assert!(new.number().is_some());
    assert_eq!(watcher.end().len(), 2);
    old.stop().await;
    new.stop().await;
}

async fn a_dropped_leader_stops_acting_and_is_replaced(plane: &ControlPlane) {
    let (old, new) = pair(plane, "dropped", ["a", "b"]).await;
    let watcher = Watcher::start(&[&old, &new]);
    old.order(Order::Drop);
    within(seconds(1), "dropped: the old one acts no more", || {
        old.number().is_none()
    })
    .await;
    within(seconds(15), "dropped: the other leads", || new.number().is_some()).await;
    assert_eq!(watcher.end().len(), 2);
    new.stop().await;
}

async fn two_of_one_name_never_act_at_once(plane: &ControlPlane) {
    let (leader, follower) = pair(plane, "namesakes", ["same", "same"]).await;
    let watcher = Watcher::start(&[&leader, &follower]);
    tokio::time::sleep(seconds(12)).await;
    assert!(leader.number().is_some() && follower.number().is_none());
    leader.order(Order::Freeze(seconds(12)));
    within(seconds(15), "namesakes: the other leads", || {
        follower.number().is_some()
    })
    .await;
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(watcher.end().len(), 2);
    leader.stop().await;
    follower.stop().await;
}

async fn a_deleted_or_spoilt_record_brings_no_second_leader(plane: &ControlPlane) {
    let (leader, follower) = pair(plane, "spoilt", ["a", "b"]).await;
    let watcher = Watcher::start(&[&leader, &follower]);
    let api: Api<Lease> = Api::namespaced(plane.client().await.unwrap(), "spoilt");
    tokio::time::sleep(seconds(2)).await;
    api.delete("dsv-operator", &DeleteParams::default()).await.unwrap();
    let first = leader.number();
    within(seconds(20), "spoilt: a later term acts", || {
        [leader.number(), follower.number()].into_iter().flatten().max() > first
    })
    .await;
    let emptied = Patch::Merge(serde_json::json!({"spec": null}));
    let options = PatchParams::default();
    api.patch("dsv-operator", &options, &emptied).await.unwrap();
    let second = leader.number().max(follower.number());
    within(seconds(20), "spoilt: leadership survives an emptied record", || {
        [leader.number(), follower.number()].into_iter().flatten().max() > second
    })
    .await;
    assert!(watcher.end().len() >= 3);
    leader.stop().await;
    follower.stop().await;
}

/// Started as a process of its own by the tests below: a candidate that says all the time under which term it acts.
#[tokio::test]
async fn a_candidate_in_a_process_of_its_own() {
    let Ok(kubeconfig) = std::env::var("E2E_CANDIDATE_KUBECONFIG") else {
        return;
    };
    let namespace = std::env::var("E2E_CANDIDATE_NAMESPACE").unwrap();
    let client = control_plane::client(Path::new(&kubeconfig)).await.unwrap();
    let leadership = Leadership::start(client, &namespace, "victim", CancellationToken::new());
    let leader = leadership.handle();
    loop {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let number = leader.acting().map_or(0, |term| term.number);
        writeln!(std::io::stderr(), "acts {asked} {number}").unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A candidate in a process of its own, and what it said: when it asked (µs since 1970) and the term or 0.
struct Victim {
    child: Child,
    said: Arc<Mutex<Vec<(u128, i64)>>>,
}

impl Victim {
    fn start(plane: &ControlPlane, namespace: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", VICTIM, "--nocapture"])
            .env("E2E_CANDIDATE_KUBECONFIG", plane.kubeconfig())
            .env("E2E_CANDIDATE_NAMESPACE", namespace)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (pipe, lines) = (child.stderr.take().unwrap(), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut words = line.split(' ');
                if words.next() == Some("acts") {
                    let asked = words.next().unwrap().parse().unwrap();
                    lines
                        .lock()
                        .unwrap()
                        .push((asked, words.next().unwrap().parse().unwrap()));
                }
            }
        });
        Self { child, said }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn last(&self) -> i64 {
        self.said.lock().unwrap().last().map_or(0, |(_, number)| *number)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_stopped_process_does_not_act_when_it_goes_on(plane: &ControlPlane) {
    make_namespace(plane, "stopped").await;
    let victim = Victim::start(plane, "stopped");
    within(seconds(5), "stopped: the victim leads", || victim.last() > 0).await;
    let term = victim.last();
    let other = Contender::start(plane.kubeconfig(), "stopped", "other");
    tokio::time::sleep(seconds(4)).await;
    victim.signal(Signal::SIGSTOP);
    let stopped = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    within(seconds(15), "stopped: the other leads", || other.number().is_some()).await;
    victim.signal(Signal::SIGCONT);
    tokio::time::sleep(seconds(4)).await;
    assert_eq!(victim.last(), 0);
    assert!(other.number().unwrap() > term);
    let said = victim.said.lock().unwrap().clone();
    // It had asked and not yet spoken when it was stopped; whatever it asked later it must have been told no.
    let late: Vec<_> = said
        .iter()
        .filter(|(asked, number)| *asked > stopped + 100_000 && *number > 0)
        .collect();
    assert!(said.len() > 100 && late.is_empty(), "{late:?}");
    other.stop().await;
}

async fn a_killed_process_is_replaced_within_fifteen_seconds(plane: &ControlPlane) {
    make_namespace(plane, "killed").await;
    let victim = Victim::start(plane, "killed");
    within(seconds(5), "killed: the victim leads", || victim.last() > 0).await;
    let other = Contender::start(plane.kubeconfig(), "killed", "other");
    tokio::time::sleep(seconds(4)).await;
    victim.signal(Signal::SIGKILL);
    within(seconds(15), "killed: the other leads", || other.number().is_some()).await;
    assert!(other.number().unwrap() > victim.last());
    other.stop().await;
}

#[tokio::test]
async fn one_acts_and_the_next_follows() {
    let plane = ControlPlane::start().await.unwrap();
    tokio::join!(
        given_up_leadership_is_taken_within_three_seconds(&plane),
        a_frozen_leader_stops_acting_and_is_replaced(&plane),
        a_dropped_leader_stops_acting_and_is_replaced(&plane),
        two_of_one_name_never_act_at_once(&plane),
        a_deleted_or_spoilt_record_brings_no_second_leader(&plane),
        a_stopped_process_does_not_act_when_it_goes_on(&plane),
        a_killed_process_is_replaced_within_fifteen_seconds(&plane),
    );
}

#[tokio::test]
async fn nobody_acts_while_the_api_server_does_not_answer() {
    let plane = ControlPlane::start().await.unwrap();
    let (leader, follower) = pair(&plane, "silent", ["a", "b"]).await;
    let watcher = Watcher::start(&[&leader, &follower]);
    plane.apiserver().signal(Signal::SIGSTOP).unwrap();
    let nobody = || leader.number().is_none() && follower.number().is_none();
    within(ACTING + seconds(1), "silent: nobody acts", nobody).await;
    within(seconds(1), "silent: the leader says so", || {
        *leader.standing.borrow() == Standing::Following
    })
    .await;
    tokio::time::sleep(seconds(10)).await;
    assert!(nobody());
    plane.apiserver().signal(Signal::SIGCONT).unwrap();
    within(seconds(15), "silent: one leads again", || !nobody()).await;
    assert_eq!(watcher.end().len(), 2);
    leader.stop().await;
    follower.stop().await;
}
