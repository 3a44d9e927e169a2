//! Leading every step's subject to the place where a fault strikes it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::blows::{Blow, Moment};
use super::lane::Lane;
use super::steps::{PLACES, Place, Story};
use crate::scene::sleep_until;

/// How long the credentials live that end by themselves: long enough to make them all, log in, and lead the others up. On a
/// machine that is too slow for it, all times are longer by a whole factor, the pace.
const SHORT: Duration = Duration::from_secs(12);
/// How long the others live. An account that failed is proven gone when this is over, which a round waits for.
const LONG: Duration = Duration::from_secs(18);
/// How long before the end of the short ones the others are led to their places.
const LEAD: Duration = Duration::from_millis(2500);
const REACH_LIMIT: Duration = Duration::from_secs(15);

/// A dynamic secret, and where the fault strikes it.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) sessions: Vec<Client>,
    pub(super) trouble: Option<String>,
    pub(super) doubled: usize,
}

pub(super) fn subjects(number: usize) -> Vec<Subject> {
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

fn spec(story: Story, pace: u32) -> Value {
    let (short, long) = (SHORT * pace, LONG * pace);
    match story {
        Story::Ask | Story::Rotate => json!({
            "ttl": long.as_secs(),
            "issuance": {"mode": "Rotate", "renewBefore": 5, "overlap": 1},
        }),
        Story::Expire => json!({"ttl": short.as_secs(), "issuance": {"mode": "Once"}}),
        Story::Delete => json!({"ttl": long.as_secs(), "issuance": {"mode": "Once"}}),
    }
}

/// Brings every subject to its place.
pub(super) async fn lead_up(lane: &Lane<'_>, blow: &Blow, subjects: &mut [Subject], pace: u32) -> Result<()> {
    // Those that live longest first: on a busy machine the others must not end before anybody has logged in.
    for story in [Story::Rotate, Story::Delete, Story::Expire] {
        for subject in subjects.iter().filter(|subject| subject.place.story == story) {
            lane.scene.ask(&subject.name, &spec(story, pace)).await?;
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
    let early = jiff::SignedDuration::try_from(LEAD * pace)?;
    sleep_until(ends.saturating_sub(early)?, Duration::ZERO).await;
    if blow.moment() == Moment::Throughout {
        blow.strike(lane).await?;
    }
    // What ends by itself comes whether or not the others are at their places by then, so those are armed first.
    let (by_itself, led): (Vec<&Subject>, Vec<&Subject>) = subjects
        .iter()
        .partition(|subject| subject.place.story == Story::Expire);
    for subject in by_itself.into_iter().chain(led) {
        begin(lane, blow, subject, pace).await?;
    }
    if blow.moment() == Moment::Held {
        reach(lane, subjects, pace).await?;
    }
    Ok(())
}

/// Arms the place of a subject and does what leads there.
async fn begin(lane: &Lane<'_>, blow: &Blow, subject: &Subject, pace: u32) -> Result<()> {
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
            lane.scene.ask(&subject.name, &spec(Story::Ask, pace)).await?;
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
        points.reached(subject.place.point, REACH_LIMIT * pace).await?;
    }
    Ok(())
}

async fn reach(lane: &Lane<'_>, subjects: &[Subject], pace: u32) -> Result<()> {
    let points = &lane.wiring()?.failpoints;
    let start = Instant::now();
    for subject in subjects {
        let left = (REACH_LIMIT * pace).saturating_sub(start.elapsed());
        points.reached(subject.place.point, left).await?;
    }
    Ok(())
}
