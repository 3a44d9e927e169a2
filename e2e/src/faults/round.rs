//! One fault, struck at every step at once: each step has a dynamic secret of its own that is held there while it strikes.
//!
//! First come those whose story begins with a live credential, then the others are led to their places, one after the
//! other. When all stand still the fault strikes, everybody is let go, the fault heals. Then the service must be whole again,
//! everything is deleted, and the judge counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::blows::{Blow, Moment};
use super::judge::{self, Before, Left};
use super::lane::Lane;
use super::lead::{self, Subject};
use super::matrix;
use super::steps::{Place, Step, Story};
use super::tales::Tale;
use crate::objects::{condition, text};
use crate::say::say;

/// How long after healing every dynamic secret has a working credential again.
const SERVICE_LIMIT: Duration = Duration::from_secs(100);
/// How long after healing and deletion nothing at all is left. Proofs of absence take as long as a credential lives.
const CLEAN_LIMIT: Duration = Duration::from_secs(75);
const POLL: Duration = Duration::from_millis(400);

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
    /// The same, with one more trouble.
    fn with(mut self, error: &anyhow::Error) -> Self {
        let old = self.trouble.map(|old| format!("{old}; ")).unwrap_or_default();
        self.trouble = Some(format!("{old}{error:#}"));
        self
    }

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

/// The slowest pace that is tried.
const SLOWEST: u32 = 4;

/// Plays one fault on a lane. Where the machine is too slow for everybody to be at his place in time, it is played again at half
/// the pace; what the try has left is judged all the same.
pub async fn play(lane: &Lane<'_>, blow: &Blow, number: usize) -> Result<Outcome> {
    let start = Instant::now();
    let mut pace = 1;
    loop {
        let (led, mut outcome) = play_at(lane, blow, number, pace).await?;
        let left = outcome.trouble.is_some() || outcome.cells.iter().any(|(_, _, cell)| !cell.survived());
        outcome.took = start.elapsed();
        match led {
            Err(error) if pace < SLOWEST && !left => {
                pace *= 2;
                say(format!(
                    "{}: {}; again, {pace} times as slow",
                    blow.name(),
                    matrix::brief(&format!("{error:#}"))
                ));
            }
            Err(error) => return Ok(outcome.with(&error)),
            Ok(()) => return Ok(outcome),
        }
    }
}

/// Whether everybody could be led to his place, and what became of it.
async fn play_at(lane: &Lane<'_>, blow: &Blow, number: usize, pace: u32) -> Result<(Result<()>, Outcome)> {
    lane.ready().await.context("before the fault")?;
    let before = Before::look(&lane.scene).await?;
    let mut subjects = lead::subjects(number);
    let led = lead::lead_up(lane, blow, &mut subjects, pace).await;
    let struck = if led.is_ok() { strike(lane, blow).await } else { Ok(()) };
    // Whatever went wrong, the lane is whole again for the next fault.
    lane.wiring()?.failpoints.clear()?;
    let healed = blow.heal(lane).await;
    lane.ready().await.context("after the fault")?;
    // Where not even the beginning was as it should be, nobody need be waited for.
    if led.is_ok() {
        settle(lane, &before, &mut subjects).await;
    }
    delete(lane, &subjects).await?;
    let mut outcome = count(lane, &before, subjects).await?;
    for error in [struck, healed].into_iter().filter_map(Result::err) {
        outcome = outcome.with(&error);
    }
    Ok((led, outcome))
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
        let waits = waiting(lane).await?;
        outcome.trouble = Some(format!("waiting: {waits:?}; left behind: {left:?}"));
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

/// The dynamic secrets that are still there, and what they say.
async fn waiting(lane: &Lane<'_>) -> Result<Vec<String>> {
    let there = lane.scene.objects.list("DynamicSecret", &lane.scene.shop).await?;
    let says =
        |object: &serde_json::Value| format!("{} {}", text(object, "/metadata/name"), condition(object, "Ready"));
    Ok(there.iter().map(says).collect())
}
