//! The operator as a whole: health first, then leadership, then, while leading, the hub and all controllers.

use super::context::{Context, Settings, Wakes};
use super::directory::Directory;
use super::hold::Error;
use super::watches::{self, Watches};
use super::{dynamic_secret, engine, lease, pool, sweep};
use crate::api::lease::Maker;
use crate::api::{CredentialLease, DynamicSecret, Engine, EnginePool};
use crate::channel::Timing;
use crate::channel::frames::CloseCode;
use crate::channel::hub::{Hub, HubIdentity};
use crate::channel::listener::{TlsError, TlsListener};
use crate::cluster::installation::{self, Installation, InstallationError};
use crate::cluster::leadership::{Leader, Standing, Term};
use crate::keys::{CERTIFICATE_LIFE, ChannelKey, KeyError};
use crate::telemetry::liveness::{Beat, Beats};
use crate::telemetry::metrics::{Controller as Controlled, Metrics, ReconcileOutcome};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::ListParams;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Passes of one controller at once. More only queue in the API server.
const CONCURRENCY: u16 = 16;
/// How long one pass may take: client retries could otherwise hold an object for minutes.
const PASS: Duration = Duration::from_secs(60);
/// Between two renewals of the channel certificate, which lives four times as long.
const RENEW_CERTIFICATE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A pass that runs longer than this is stuck: beyond [`PASS`] something blocks the thread itself.
const STALLED: Duration = Duration::from_secs(120);
/// Between two counts of what is on the books.
const COUNT: Duration = Duration::from_secs(5);
/// Pause after a surprise.
const AFTER_ERROR: Duration = Duration::from_secs(2);

/// Why the operator cannot work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Keys.
    #[error("could not load the installation's keys")]
    Installation(#[from] InstallationError),
    /// The channel's certificate.
    #[error("could not certify the channel key")]
    Key(#[from] KeyError),
    /// The channel's address.
    #[error("could not listen for engines on {0}; choose another --channel-addr")]
    Listen(String, #[source] std::io::Error),
    /// The channel's TLS.
    #[error("could not set up TLS for engines")]
    Tls(#[from] TlsError),
    /// A part that must run for ever ended.
    #[error("{0} ended")]
    Ended(&'static str),
}

/// Where engines are listened for.
pub struct Channel {
    /// Address.
    pub address: String,
    /// TLS.
    pub tls: Arc<ServerConfig>,
}

/// The hub and what it is given when leadership begins.
pub struct Plant {
    client: Client,
    settings: Settings,
    leading: watch::Sender<bool>,
    metrics: Metrics,
    beats: Vec<(Controlled, Beat)>,
}

impl Plant {
    /// Nothing runs yet.
    pub fn new(client: Client, settings: Settings, metrics: Metrics, beats: &Beats) -> Self {
        let controllers = [
            Controlled::CredentialLease,
            Controlled::DynamicSecret,
            Controlled::EnginePool,
            Controlled::Engine,
        ];
        Self {
            client,
            settings,
            leading: watch::Sender::new(false),
            metrics,
            beats: controllers
                .map(|which| (which, beats.register(which.as_str(), STALLED)))
                .into(),
        }
    }

    fn beat(&self, which: Controlled) -> Option<Beat> {
        self.beats
            .iter()
            .find(|(of, _)| *of == which)
            .map(|(_, beat)| beat.clone())
    }

    /// Runs while this process is alive: works in each term that it leads, and waits in between.
    pub async fn run(
        &self,
        mut standing: watch::Receiver<Standing>,
        leader: Leader,
        channel: Channel,
        token: CancellationToken,
    ) -> Result<(), RunError> {
        let listener = TcpListener::bind(&channel.address)
            .await
            .map_err(|e| RunError::Listen(channel.address.clone(), e))?;
        let door = Door::default();
        let serving = tokio::spawn(serve(listener, channel.tls, door.clone(), token.clone()));
        let outcome = loop {
            let now = standing.borrow_and_update().clone();
            match now {
                Standing::Leading(term) => {
                    if let Err(error) = self.lead(&term, leader.clone(), &mut standing, &door, &token).await {
                        tracing::error!(error = &error as &dyn std::error::Error, "could not lead; trying again");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
                Standing::Following => {
                    tokio::select! {
                        () = token.cancelled() => break Ok(()),
                        changed = standing.changed() => if changed.is_err() { break Err(RunError::Ended("the leadership loop")) },
                    }
                }
            }
            if token.is_cancelled() {
                break Ok(());
            }
        };
        serving.abort();
        outcome
    }

    async fn lead(
        &self,
        term: &Term,
        leader: Leader,
        standing: &mut watch::Receiver<Standing>,
        door: &Door,
        token: &CancellationToken,
    ) -> Result<(), RunError> {
        let client = self.client.clone();
        let (home, release) = (self.settings.home.clone(), self.settings.release.clone());
        let keyed = async || engines_with_keys(&client).await;
        let installation = Arc::new(installation::load(&client, &home, &release, keyed).await?);
        let (stores, watches) = watches::prepare(&client);
        let identity = Arc::new(identity(&installation)?);
        let directory = Directory {
            engines: stores.engines.clone(),
            pools: stores.pools.clone(),
        };
        let hub = Hub::new(
            identity.clone(),
            Arc::new(directory),
            self.leading.subscribe(),
            Timing::default(),
        );
        let (wakes, woken) = wakes();
        let context = Arc::new(Context {
            client: client.clone(),
            settings: self.settings.clone(),
            me: Maker::from(term),
            leader,
            installation: installation.clone(),
            hub: hub.clone(),
            stores,
            wakes,
            passwords: super::memory::Passwords::default(),
            endings: super::memory::Endings::default(),
            attempts: super::memory::Attempts::default(),
            nudges: super::memory::Nudges::default(),
            relied_on: super::memory::ReliedOn::default(),
            servers: super::memory::ServerFacts::default(),
            bases: super::memory::BaseIdentities::default(),
            revocations: super::revocations::Revocations::default(),
            metrics: self.metrics.clone(),
            recorder: Recorder::new(
                client,
                Reporter {
                    controller: "dsv-operator".into(),
                    instance: Some(term.holder.clone()),
                },
            ),
            told: std::sync::Mutex::default(),
            recorded: std::sync::Mutex::default(),
            intact: std::sync::Mutex::default(),
            admission: tokio::sync::Mutex::default(),
        });
        tracing::info!(
            term = term.number,
            holder = term.holder,
            installation = installation.id,
            "leading"
        );
        let stop = token.child_token();
        let mut parts = self.start(&context, watches, woken, &stop);
        self.metrics.leading(true);
        parts.spawn(until(stop.clone(), "counts", count_for_ever(context.clone())));
        // Engines are let in when the caches can tell who they are.
        parts.spawn(open_when_ready(
            context.clone(),
            door.clone(),
            self.leading.clone(),
            stop.clone(),
        ));
        parts.spawn(renew(identity, installation, stop.clone()));
        let ended = tokio::select! {
            () = over(standing, term) => None,
            () = token.cancelled() => None,
            part = parts.join_next() => part,
        };
        self.leading.send_replace(false);
        self.metrics.leading(false);
        door.close();
        stop.cancel();
        hub.close_all(CloseCode::NotLeading);
        // Passes end at their next look at the leadership; what hangs is dropped with the set.
        let drained = tokio::time::timeout(Duration::from_secs(1), async {
            while parts.join_next().await.is_some() {}
        })
        .await;
        tracing::info!(term = term.number, clean = drained.is_ok(), "no longer leading");
        match ended {
            Some(Ok(name)) if !token.is_cancelled() => Err(RunError::Ended(name)),
            Some(Err(_)) => Err(RunError::Ended("a controller")),
            _ => Ok(()),
        }
    }

    fn part(&self, which: Controlled) -> Part {
        Part {
            which,
            beat: self.beat(which),
        }
    }

    fn start(
        &self,
        ctx: &Arc<Context>,
        watches: Watches,
        woken: Woken,
        stop: &CancellationToken,
    ) -> JoinSet<&'static str> {
        let mut parts = JoinSet::new();
        let stores = ctx.stores.clone();
        let (c, s) = (ctx.clone(), stop.clone());
        let leases = watches
            .leases
            .inspect_ok(move |lease| watches::lease_changed(&c, lease))
            .boxed();
        parts.spawn(control(
            self.part(Controlled::CredentialLease),
            leases,
            stores.leases,
            woken.leases,
            lease::reconcile,
            ctx.clone(),
            s,
        ));
        let (c, s) = (ctx.clone(), stop.clone());
        let dynamic = watches
            .dynamic_secrets
            .inspect_ok(move |one| watches::dynamic_secret_changed(&c, one))
            .boxed();
        parts.spawn(control(
            self.part(Controlled::DynamicSecret),
            dynamic,
            stores.dynamic_secrets,
            woken.dynamic_secrets,
            dynamic_secret::reconcile,
            ctx.clone(),
            s,
        ));
        let (c, s) = (ctx.clone(), stop.clone());
        let pools = watches
            .pools
            .inspect_ok(move |pool| watches::pool_changed(&c, pool))
            .boxed();
        parts.spawn(control(
            self.part(Controlled::EnginePool),
            pools,
            stores.pools,
            woken.pools,
            pool::reconcile,
            ctx.clone(),
            s,
        ));
        let (c, s) = (ctx.clone(), stop.clone());
        let engines = watches
            .engines
            .inspect_ok(move |engine| watches::engine_changed(&c, engine))
            .boxed();
        parts.spawn(control(
            self.part(Controlled::Engine),
            engines,
            stores.engines,
            woken.engines,
            engine::reconcile,
            ctx.clone(),
            s,
        ));
        parts.spawn(until(
            stop.clone(),
            "credential secrets",
            watches::follow_credentials(ctx.clone(), watches.credentials),
        ));
        parts.spawn(until(
            stop.clone(),
            "base secrets",
            watches::follow_bases(ctx.clone(), watches.bases),
        ));
        parts.spawn(until(
            stop.clone(),
            "namespaces",
            watches::follow_namespaces(ctx.clone(), watches.namespaces),
        ));
        parts.spawn(until(stop.clone(), "hub events", watches::follow_hub(ctx.clone())));
        parts.spawn(until(stop.clone(), "sweep", sweep_for_ever(ctx.clone())));
        parts
    }
}

async fn over(standing: &mut watch::Receiver<Standing>, term: &Term) {
    // A closed channel means that the leadership loop is gone, and with it our right to act.
    let _ = standing
        .wait_for(|now| !matches!(now, Standing::Leading(current) if current == term))
        .await;
}

async fn engines_with_keys(client: &Client) -> Result<usize, crate::cluster::Error> {
    use crate::cluster::Intention;
    let api: Api<Engine> = Api::all(client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .to(|| "list the engines".to_owned())?;
    Ok(list
        .items
        .iter()
        .filter(|engine| engine.spec.public_key.is_some())
        .count())
}

fn identity(installation: &Installation) -> Result<HubIdentity, KeyError> {
    let key = ChannelKey::generate()?;
    let certificate = certify(installation, &key.public())?;
    Ok(HubIdentity::new(key, certificate))
}

fn certify(
    installation: &Installation,
    key: &crate::keys::ChannelPublicKey,
) -> Result<crate::keys::ChannelCertificate, KeyError> {
    let not_after = jiff::Timestamp::now()
        .saturating_add(CERTIFICATE_LIFE)
        .unwrap_or(jiff::Timestamp::MAX);
    installation.root.certify_channel(
        key,
        &installation.signing.public(),
        &installation.id,
        not_after,
        Vec::new(),
    )
}

async fn renew(identity: Arc<HubIdentity>, installation: Arc<Installation>, stop: CancellationToken) -> &'static str {
    loop {
        tokio::select! {
            () = stop.cancelled() => return "certificate renewal",
            () = tokio::time::sleep(RENEW_CERTIFICATE) => {}
        }
        match certify(&installation, &identity.public()) {
            Ok(certificate) => identity.renew(certificate),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "could not renew the channel certificate"
            ),
        }
    }
}

/// What wakes the controllers.
struct Woken {
    leases: mpsc::UnboundedReceiver<ObjectRef<CredentialLease>>,
    dynamic_secrets: mpsc::UnboundedReceiver<ObjectRef<DynamicSecret>>,
    pools: mpsc::UnboundedReceiver<ObjectRef<EnginePool>>,
    engines: mpsc::UnboundedReceiver<ObjectRef<Engine>>,
}

fn wakes() -> (Wakes, Woken) {
    let (leases, woken_leases) = mpsc::unbounded_channel();
    let (dynamic_secrets, woken_dynamic) = mpsc::unbounded_channel();
    let (pools, woken_pools) = mpsc::unbounded_channel();
    let (engines, woken_engines) = mpsc::unbounded_channel();
    let woken = Woken {
        leases: woken_leases,
        dynamic_secrets: woken_dynamic,
        pools: woken_pools,
        engines: woken_engines,
    };
    (
        Wakes {
            leases,
            dynamic_secrets,
            pools,
            engines,
        },
        woken,
    )
}

async fn until(stop: CancellationToken, name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    tokio::select! {
        () = stop.cancelled() => {}
        () = part => {}
    }
    name
}

async fn sweep_for_ever(ctx: Arc<Context>) {
    // A Secret is judged against the leases: both caches must be complete.
    ctx.stores.filled.all().await;
    loop {
        if let Err(error) = sweep::sweep(&ctx).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the sweep of credential secrets was interrupted"
            );
        }
        tokio::time::sleep(sweep::EVERY).await;
    }
}

async fn open_when_ready(
    ctx: Arc<Context>,
    door: Door,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
) -> &'static str {
    tokio::select! {
        () = stop.cancelled() => return "door",
        () = ctx.stores.filled.all() => {}
    }
    door.open(ctx.hub.router());
    leading.send_replace(true);
    stop.cancelled().await;
    "door"
}

/// One controller: what it is counted as, and its sign of life.
struct Part {
    which: Controlled,
    beat: Option<Beat>,
}

fn judged(result: &Result<Result<Action, Error>, tokio::time::error::Elapsed>) -> ReconcileOutcome {
    match result {
        Ok(Ok(action)) if *action == Action::await_change() => ReconcileOutcome::Settled,
        Ok(Ok(_)) => ReconcileOutcome::Waiting,
        Ok(Err(_)) => ReconcileOutcome::Failed,
        Err(_) => ReconcileOutcome::TimedOut,
    }
}

async fn count_for_ever(ctx: Arc<Context>) {
    loop {
        let leases = ctx.stores.leases.state();
        ctx.metrics
            .leases(leases.iter().filter_map(|lease| lease.status.as_ref()?.phase));
        let pools = ctx.stores.pools.state();
        let connected = pools.iter().map(|pool| {
            ctx.hub
                .connected(pool.metadata.uid.as_deref().unwrap_or_default())
                .len()
        });
        ctx.metrics.engines_connected(connected.sum());
        tokio::time::sleep(COUNT).await;
    }
}

/// Runs one controller until `stop`. A pass that fails is repeated; a pass that hangs is dropped and repeated.
async fn control<K, F>(
    part: Part,
    stream: BoxStream<'static, Result<K, watcher::Error>>,
    store: Store<K>,
    woken: mpsc::UnboundedReceiver<ObjectRef<K>>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F + Send + Sync + Copy + 'static,
    ctx: Arc<Context>,
    stop: CancellationToken,
) -> &'static str
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Unpin,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let (which, name) = (part.which, part.which.as_str());
    let pass = move |object: Arc<K>, ctx: Arc<Context>| {
        let beat = part.beat.clone();
        async move {
            let _busy = beat.as_ref().map(Beat::busy);
            let metrics = ctx.metrics.clone();
            let result = tokio::time::timeout(PASS, reconcile(object, ctx)).await;
            metrics.reconciled(which, judged(&result));
            result.unwrap_or_else(|_| {
                tracing::warn!(controller = name, "a pass took too long and is repeated");
                Ok(Action::requeue(AFTER_ERROR))
            })
        }
    };
    let policy = move |object: Arc<K>, error: &Error, _: Arc<Context>| {
        let object = object.meta().name.clone().unwrap_or_default();
        match error {
            Error::NotLeading(_) => tracing::debug!(controller = name, object, "no longer leading"),
            Error::Cluster(error) if error.is_conflict() => return Action::requeue(Duration::from_millis(100)),
            other => tracing::warn!(
                controller = name,
                object,
                error = other as &dyn std::error::Error,
                "a pass failed and is repeated"
            ),
        }
        Action::requeue(AFTER_ERROR)
    };
    let wakes: BoxStream<'static, ObjectRef<K>> = receive(woken).boxed();
    Controller::for_stream(stream, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(pass, policy, ctx)
        .for_each(|outcome| {
            // Failed passes are logged by the policy; what else comes here is the watch.
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = &outcome {
                let error = error as &dyn std::error::Error;
                tracing::warn!(controller = name, error, "the watch was interrupted; it starts anew");
            }
            std::future::ready(())
        })
        .await;
    name
}

fn receive<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// The way in for engines: open while this process leads, a 503 with a sentence otherwise.
#[derive(Clone, Default)]
struct Door(Arc<std::sync::RwLock<Option<axum::Router>>>);

impl Door {
    fn open(&self, router: axum::Router) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(router);
    }

    fn close(&self) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    fn router(&self) -> Option<axum::Router> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    door: Door,
    token: CancellationToken,
) -> Result<(), std::io::Error> {
    use axum::response::IntoResponse;
    use tower::ServiceExt;
    let listener = TlsListener::new(listener, move || tls.clone())?;
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let door = door.clone();
        async move {
            match door.router() {
                Some(router) => router.oneshot(request).await.into_response(),
                None => (
                    http::StatusCode::SERVICE_UNAVAILABLE,
                    "this replica does not lead; dial the next endpoint, or again in a moment\n",
                )
                    .into_response(),
            }
        }
    });
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<crate::channel::listener::Peer>(),
    )
    .with_graceful_shutdown(token.cancelled_owned())
    .await
}
