//! One fault, struck at every step at once: each step has a dynamic secret of its own that is held there while it strikes.
//!
//! First come those whose story begins with a live credential, then the others are led to their places, one after the
//! other. When all stand still the fault strikes, everybody is let go, the fault heals. Then the service must be whole again,
//! everything is deleted, and the judge counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_postgres::Client;

use super::blows::{Blow, Moment};
use super::judge::{self, Before, Left};
use super::lane::Lane;
use super::steps::{PLACES, Place, Step, Story};
use super::tales::Tale;
use crate::objects::text;
use crate::scene::sleep_until;

/// How long the credentials live that end by themselves: long enough to make them all, log in, and lead the others up.
const SHORT: Duration = Duration::from_secs(12);
/// How long the others live. An account that failed is proven gone when this is over, which a round waits for.
const LONG: Duration = Duration::from_secs(18);
/// How long before the end of the short ones the others are led to their places.
const LEAD: Duration = Duration::from_millis(2500);
const REACH_LIMIT: Duration = Duration::from_secs(15);
/// How long after healing every dynamic secret has a working credential again.
const SERVICE_LIMIT: Duration = Duration::from_secs(45);
/// How long after healing and deletion nothing at all is left. Proofs of absence take as long as a credential lives.
const CLEAN_LIMIT: Duration = Duration::from_secs(75);
const POLL: Duration = Duration::from_millis(100);

/// What became of one place.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    pub accounts: usize,
    pub doubled: usize,
    pub leases: usize,
    pub secrets: usize,
    pub sessions: usize,
    /// Why the service did not come back, or the fault did not strike here.
    pub trouble: Option<String>,
}

impl Cell {
    pub fn survived(&self) -> bool {
        self.accounts + self.doubled + self.leases + self.secrets + self.sessions == 0 && self.trouble.is_none()
    }
}

/// What became of one fault on one server.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub cells: Vec<(Step, &'static str, Cell)>,
    /// What is left and belongs to no place, and other trouble; a round with some did not survive.
    pub trouble: Option<String>,
    /// From healing until nothing of use was left, and until nothing at all was.
    pub harmless: Option<Duration>,
    pub clean: Option<Duration>,
    pub took: Duration,
}

impl Outcome {
    /// A round that could not be played.
    pub fn failed(error: &anyhow::Error) -> Self {
        Self {
            trouble: Some(format!("{error:#}")),
            ..Self::default()
        }
    }
}

const LIFE: Place = Place {
    step: Step::Life,
    point: "life",
    story: Story::Ask,
};

struct Subject {
    name: String,
    place: Place,
    sessions: Vec<Client>,
    trouble: Option<String>,
    doubled: usize,
}

/// Plays one fault on a lane.
pub async fn play(lane: &Lane<'_>, blow: &Blow, number: usize) -> Result<Outcome> {
    let start = Instant::now();
    lane.ready().await.context("before the fault")?;
    let before = Before::look(&lane.scene).await?;
    let mut subjects = subjects(number);
    let led = lead_up(lane, blow, &mut subjects).await;
    let struck = match led {
        Ok(()) => strike(lane, blow).await,
        Err(error) => Err(error),
    };
    // Whatever went wrong, the lane is whole again for the next fault.
    lane.wiring()?.failpoints.clear()?;
    let healed = blow.heal(lane).await;
    lane.ready().await.context("after the fault")?;
    // Where not even the beginning was as it should be, nobody need be waited for.
    if struck.is_ok() {
        settle(lane, &before, &mut subjects).await;
    }
    delete(lane, &subjects).await?;
    let mut outcome = count(lane, &before, subjects).await?;
    let troubles = [struck, healed]
        .into_iter()
        .filter_map(|result| result.err().map(|error| format!("{error:#}")));
    for trouble in troubles {
        outcome.trouble = Some(
            outcome
                .trouble
                .map_or(trouble.clone(), |old| format!("{old}; {trouble}")),
        );
    }
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// Tells tales, all at the same time, and judges what each of them left.
pub async fn tell(lane: &Lane<'_>, tales: &[Tale], number: usize) -> Result<Vec<Outcome>> {
    let start = Instant::now();
    lane.ready().await.context("before the tale")?;
    let before = Before::look(&lane.scene).await?;
    let mut subjects: Vec<Subject> = (0..tales.len())
        .map(|at| Subject {
            name: format!("p{number:03}-{at:02}"),
            place: LIFE,
            sessions: Vec::new(),
            trouble: None,
            doubled: 0,
        })
        .collect();
    let telling = tales.iter().zip(&mut subjects).map(async |(tale, subject)| {
        if let Err(error) = (tale.tell)(lane, &subject.name).await {
            subject.trouble = Some(format!("{error:#}"));
        }
    });
    futures::future::join_all(telling).await;
    Blow::clear(lane)?;
    lane.ready().await.context("after the tale")?;
    for object in lane.scene.objects.list("DynamicSecret", &lane.scene.shop).await? {
        let name = text(&object, "/metadata/name");
        lane.scene
            .objects
            .delete("DynamicSecret", &lane.scene.shop, &name)
            .await?;
    }
    let mut all = count(lane, &before, subjects).await?;
    all.took = start.elapsed();
    let cells = std::mem::take(&mut all.cells);
    let one = |cell| Outcome {
        cells: vec![cell],
        ..all.clone()
    };
    Ok(cells.into_iter().map(one).collect())
}

fn subjects(number: usize) -> Vec<Subject> {
    let subject = |(at, place): (usize, &Place)| Subject {
        // No letter of a hash or a UID in it, and one length: no name is part of another's.
        name: format!("p{number:03}-{at:02}"),
        place: *place,
        sessions: Vec::new(),
        trouble: None,
        doubled: 0,
    };
    PLACES.iter().enumerate().map(subject).collect()
}

fn spec(story: Story) -> Value {
    match story {
        Story::Ask | Story::Rotate => json!({
            "ttl": LONG.as_secs(),
            "issuance": {"mode": "Rotate", "renewBefore": 5, "overlap": 1},
        }),
        Story::Expire => json!({"ttl": SHORT.as_secs(), "issuance": {"mode": "Once"}}),
        Story::Delete => json!({"ttl": LONG.as_secs(), "issuance": {"mode": "Once"}}),
    }
}

/// Brings every subject to its place.
async fn lead_up(lane: &Lane<'_>, blow: &Blow, subjects: &mut [Subject]) -> Result<()> {
    // Those that live longest first: on a busy machine the others must not end before anybody has logged in.
    for story in [Story::Rotate, Story::Delete, Story::Expire] {
        for subject in subjects.iter().filter(|subject| subject.place.story == story) {
            lane.scene.ask(&subject.name, &spec(story)).await?;
        }
    }
    let mut ends = None;
    for story in [Story::Expire, Story::Delete, Story::Rotate] {
        for subject in subjects.iter_mut().filter(|subject| subject.place.story == story) {
            let credential = lane.scene.wait_credential(&subject.name).await?;
            subject.sessions.push(lane.scene.use_account(&credential.login).await?);
            if story == Story::Expire {
                ends = ends.min(Some(credential.expires_at)).or(Some(credential.expires_at));
            }
        }
    }
    let ends = ends.context("no story ends by itself")?;
    let early = jiff::SignedDuration::try_from(LEAD)?;
    sleep_until(ends.saturating_sub(early)?, Duration::ZERO).await;
    if blow.moment() == Moment::Throughout {
        blow.strike(lane).await?;
    }
    // What ends by itself comes whether or not the others are at their places by then, so those are armed first.
    let (by_itself, led): (Vec<&Subject>, Vec<&Subject>) = subjects
        .iter()
        .partition(|subject| subject.place.story == Story::Expire);
    for subject in by_itself.into_iter().chain(led) {
        begin(lane, blow, subject).await?;
    }
    if blow.moment() == Moment::Held {
        reach(lane, subjects).await?;
    }
    Ok(())
}

/// Arms the place of a subject and does what leads there.
async fn begin(lane: &Lane<'_>, blow: &Blow, subject: &Subject) -> Result<()> {
    let points = &lane.wiring()?.failpoints;
    let held = blow.moment() == Moment::Held;
    let whose = if subject.place.point.contains("ensureGroup") {
        "*"
    } else {
        &subject.name
    };
    if held {
        points.arm(subject.place.point, "hold", whose)?;
    }
    match subject.place.story {
        Story::Ask => {
            lane.scene.ask(&subject.name, &spec(Story::Ask)).await?;
        }
        Story::Rotate => {
            lane.scene.rotate(&subject.name, "now").await?;
        }
        Story::Delete => {
            let shop = &*lane.scene.shop;
            lane.scene.objects.delete("DynamicSecret", shop, &subject.name).await?;
        }
        Story::Expire => {}
    }
    if held && subject.place.comes_alone() {
        points.reached(subject.place.point, REACH_LIMIT).await?;
    }
    Ok(())
}

async fn reach(lane: &Lane<'_>, subjects: &mut [Subject]) -> Result<()> {
    let points = &lane.wiring()?.failpoints;
    let start = Instant::now();
    for subject in subjects {
        let left = REACH_LIMIT.saturating_sub(start.elapsed());
        if let Err(error) = points.reached(subject.place.point, left).await {
            subject.trouble = Some(error.to_string());
        }
    }
    Ok(())
}

/// The fault itself, with everybody standing still or everything in motion.
async fn strike(lane: &Lane<'_>, blow: &Blow) -> Result<()> {
    match blow.moment() {
        Moment::Held => {
            blow.strike(lane).await?;
            lane.wiring()?.failpoints.clear()?;
            sleep(blow.lasts()).await;
        }
        Moment::Throughout => sleep(blow.lasts()).await,
    }
    Ok(())
}

/// Waits until everyone who still wants a credential has one that works, and only one.
async fn settle(lane: &Lane<'_>, before: &Before, subjects: &mut [Subject]) {
    let start = Instant::now();
    for subject in subjects {
        if !matches!(subject.place.story, Story::Ask | Story::Rotate) {
            continue;
        }
        loop {
            let Err(error) = served(lane, before, subject).await else {
                subject.doubled = 0;
                break;
            };
            if start.elapsed() > SERVICE_LIMIT {
                subject.trouble.get_or_insert(format!("{error:#}"));
                break;
            }
            sleep(POLL).await;
        }
    }
}

async fn served(lane: &Lane<'_>, before: &Before, subject: &mut Subject) -> Result<()> {
    let credential = lane
        .scene
        .credential(&subject.name)
        .await?
        .context("there is no credential")?;
    let accounts = before.accounts_of(&lane.scene, &subject.name).await?;
    subject.doubled = accounts.len().saturating_sub(1);
    ensure!(accounts.len() <= 1, "there are {} accounts", accounts.len());
    lane.scene.use_account(&credential.login).await?;
    Ok(())
}

async fn delete(lane: &Lane<'_>, subjects: &[Subject]) -> Result<()> {
    for subject in subjects {
        let shop = &*lane.scene.shop;
        lane.scene.objects.delete("DynamicSecret", shop, &subject.name).await?;
    }
    Ok(())
}

/// Waits until nothing is left, and says what is if that does not come true.
async fn count(lane: &Lane<'_>, before: &Before, subjects: Vec<Subject>) -> Result<Outcome> {
    let deleted = Instant::now();
    let mut outcome = Outcome::default();
    let left = loop {
        let left = before.left(&lane.scene).await?;
        if left.is_harmless() && outcome.harmless.is_none() {
            outcome.harmless = Some(deleted.elapsed());
        }
        if left.is_harmless() && left.leases.is_empty() && !left.books.is_empty() {
            // In the middle of a handover it is refused; then the next look does it.
            let _ = judge::drop_kept(&lane.scene).await;
        }
        if left.is_clean() {
            outcome.clean = Some(deleted.elapsed());
            break left;
        }
        if deleted.elapsed() > CLEAN_LIMIT {
            break before.all_left(&lane.scene).await?;
        }
        sleep(POLL).await;
    };
    let mut left = attribute(left, subjects, &mut outcome);
    left.retain(|_, names| !names.is_empty());
    if !left.is_empty() {
        outcome.trouble = Some(format!("left behind: {left:?}"));
    }
    Ok(outcome)
}

/// Counts what is left at the place that it comes from; the answer is what comes from none.
fn attribute(left: Left, subjects: Vec<Subject>, outcome: &mut Outcome) -> BTreeMap<&'static str, Vec<String>> {
    let mut rest = BTreeMap::from([
        ("accounts", left.accounts),
        ("leases", left.leases),
        ("secrets", left.secrets),
        ("sessions", left.sessions),
    ]);
    let mut books: Vec<String> = left.books.lines().map(str::to_owned).collect();
    for subject in subjects {
        let mut of = |kind: &str| {
            let Some(names) = rest.get_mut(kind) else { return 0 };
            let before = names.len();
            names.retain(|name| !name.contains(&subject.name));
            before - names.len()
        };
        let mut cell = Cell {
            accounts: of("accounts"),
            doubled: subject.doubled,
            leases: of("leases"),
            secrets: of("secrets"),
            sessions: of("sessions"),
            trouble: subject.trouble,
        };
        // A locked account cannot log in, but it is there.
        let named = books
            .iter()
            .filter(|line| line.starts_with("+ role") && line.contains(&subject.name))
            .count();
        cell.accounts = cell.accounts.max(named);
        outcome.cells.push((subject.place.step, subject.place.point, cell));
        books.retain(|line| !line.contains(&subject.name));
    }
    rest.insert("books", books);
    rest
}
