//! The plant: what one operator process does in each term that it leads, and how it waits in between.

use super::context::{Context, Settings};
use super::controllers::{AFTER_ERROR, Controllers, until, wakes};
use super::directory::Directory;
use super::door::Door;
use super::keys;
use super::watches;
use crate::api::Engine;
use crate::channel::Timing;
use crate::channel::frames::CloseCode;
use crate::channel::hub::{Hub, HubIdentity, HubMetrics};
use crate::channel::listener::TlsError;
use crate::clock;
use crate::cluster::installation::{self, Installation, InstallationError};
use crate::cluster::leadership::{Leader, Standing, Term};
use crate::cluster::{Intention, leader_pod};
use crate::keys::{CERTIFICATE_LIFE, ChannelCertificate, ChannelKey, ChannelPublicKey, KeyError};
use crate::telemetry::liveness::Beats;
use crate::telemetry::logs::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Part, Readiness};
use kube::api::ListParams;
use kube::{Api, Client};
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two renewals of the channel certificate, which lives four times as long.
const RENEW_CERTIFICATE: Duration = Duration::from_hours(7 * 24);
/// How long passes may take to notice that a leadership is over.
const DRAIN: Duration = Duration::from_secs(1);

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

/// What stays the same from one leadership of this process to the next.
pub struct Plant {
    client: Client,
    settings: Settings,
    metrics: Metrics,
    /// Of the hubs of all leaderships, one after the other.
    hub_metrics: HubMetrics,
    controllers: Controllers,
    /// Whether engines are let in.
    open: watch::Sender<bool>,
    door: Door,
    /// Not ready while leading is not possible, such as without the root key.
    keys: Part,
}

impl Plant {
    /// Nothing runs yet.
    pub fn new(
        client: Client,
        settings: Settings,
        (metrics, hub_metrics): (Metrics, HubMetrics),
        beats: &Beats,
        readiness: &Readiness,
    ) -> Self {
        let controllers = Controllers::new(beats);
        let (open, door) = (watch::Sender::new(false), Door::default());
        let keys = readiness.register("keys");
        // A replica that follows needs none.
        keys.ready();
        Self {
            client,
            settings,
            metrics,
            hub_metrics,
            controllers,
            open,
            door,
            keys,
        }
    }

    /// Runs while this process is alive: works in each term that it leads, and waits in between.
    pub async fn run(
        &self,
        mut standing: watch::Receiver<Standing>,
        leader: Leader,
        channel: Channel,
        token: CancellationToken,
    ) -> Result<(), RunError> {
        let bound = TcpListener::bind(&channel.address).await;
        let listener = bound.map_err(|error| RunError::Listen(channel.address.clone(), error))?;
        let serving = tokio::spawn(self.door.clone().serve(listener, channel, token.clone()));
        while !token.is_cancelled() {
            let now = standing.borrow_and_update().clone();
            if let Standing::Leading(term) = now {
                if let Err(error) = self.lead(&term, &leader, &mut standing, &token).await {
                    self.cannot_lead(&error).await;
                    tokio::time::sleep(AFTER_ERROR).await;
                }
                continue;
            }
            tokio::select! {
                () = token.cancelled() => {}
                changed = standing.changed() => changed.map_err(|_| RunError::Ended("the leadership loop"))?,
            }
        }
        serving.abort();
        Ok(())
    }

    async fn cannot_lead(&self, error: &RunError) {
        let text = chain(error).to_string();
        tracing::error!(error = text, "could not lead; trying again");
        if let RunError::Installation(missing @ InstallationError::RootKeyMissing(_)) = error
            && let Err(error) = keys::say_root_key_missing(&self.client, &missing.to_string()).await
        {
            tracing::warn!(error = %chain(&error), "could not say on engines and pools that the root key is missing");
        }
        self.keys.missing(text);
    }

    async fn lead(
        &self,
        term: &Term,
        leader: &Leader,
        standing: &mut watch::Receiver<Standing>,
        token: &CancellationToken,
    ) -> Result<(), RunError> {
        let keyed = async || engines_with_keys(&self.client).await;
        let (home, release) = (&self.settings.home, &self.settings.release);
        let installation = Arc::new(installation::load(&self.client, home, release, keyed).await?);
        self.keys.ready();
        let (stores, watches) = watches::prepare(&self.client, &self.metrics, &self.settings.served);
        let identity = Arc::new(identity(&installation)?);
        let directory = Directory {
            engines: stores.engines.clone(),
            pools: stores.pools.clone(),
        };
        let hub = Hub::new(
            identity.clone(),
            Arc::new(directory),
            self.open.subscribe(),
            Timing::default(),
            self.hub_metrics.clone(),
        );
        let (wakes, woken) = wakes();
        let context = Arc::new(Context::new(
            self.client.clone(),
            self.settings.clone(),
            self.metrics.clone(),
            (term, leader.clone()),
            installation.clone(),
            (hub.clone(), stores, wakes),
        ));
        let (number, holder, id) = (term.number, &term.holder, &installation.id);
        tracing::info!(term = number, holder, installation = id, "leading");
        let stop = token.child_token();
        let mut parts = self.controllers.start(&context, watches, woken, &stop);
        self.metrics.leading(true);
        parts.spawn(self.open_when_ready(context.clone(), stop.clone()));
        parts.spawn(until(
            stop.clone(),
            "keys",
            keys::follow(context.clone(), identity.clone()),
        ));
        parts.spawn(renew(identity, installation, stop.clone()));
        let ended = tokio::select! {
            () = over(standing, term) => None,
            () = token.cancelled() => None,
            part = parts.join_next() => part,
        };
        self.open.send_replace(false);
        self.metrics.leading(false);
        // Nobody counts any more until the next leadership.
        self.metrics.engines_connected(0);
        self.door.close();
        stop.cancel();
        hub.close_all(CloseCode::NotLeading);
        drain(parts, number).await;
        // The next leader counts these; two counts of one lease would look like two leases.
        self.metrics.leases(std::iter::empty());
        self.metrics.overdue(Duration::ZERO);
        match ended {
            Some(Ok(name)) if !token.is_cancelled() => Err(RunError::Ended(name)),
            Some(Err(_)) => Err(RunError::Ended("a controller")),
            _ => Ok(()),
        }
    }

    /// Engines are let in when the caches can tell who they are; then the Service is pointed here.
    fn open_when_ready(
        &self,
        ctx: Arc<Context>,
        stop: CancellationToken,
    ) -> impl Future<Output = &'static str> + use<> {
        let (door, open) = (self.door.clone(), self.open.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => return "door",
                () = ctx.stores.filled.with(&[watches::ENGINES, watches::POOLS]) => {}
            }
            door.open(ctx.hub.router());
            open.send_replace(true);
            if let Some(pod) = &ctx.settings.pod
                && let Err(error) = leader_pod::point_here(&ctx.client, &ctx.settings.home, pod).await
            {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "engines behind the Service may not find this leader"
                );
            }
            stop.cancelled().await;
            "door"
        }
    }
}

/// Passes end at their next look at the leadership; what hangs is dropped with the set.
async fn drain(mut parts: JoinSet<&'static str>, term: i64) {
    let drained = tokio::time::timeout(DRAIN, async { while parts.join_next().await.is_some() {} }).await;
    tracing::info!(term, clean = drained.is_ok(), "no longer leading");
}

async fn over(standing: &mut watch::Receiver<Standing>, term: &Term) {
    // A closed channel means that the leadership loop is gone, and with it our right to act.
    let _ = standing
        .wait_for(|now| !matches!(now, Standing::Leading(current) if current == term))
        .await;
}

async fn engines_with_keys(client: &Client) -> Result<usize, crate::cluster::Error> {
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

/// A certificate for the channel key, with the public half of the key that signs role comments now.
pub fn certify(installation: &Installation, key: &ChannelPublicKey) -> Result<ChannelCertificate, KeyError> {
    let not_after = clock::now()
        .saturating_add(CERTIFICATE_LIFE)
        .unwrap_or(jiff::Timestamp::MAX);
    installation.root.certify_channel(
        key,
        &installation.signing().public(),
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
