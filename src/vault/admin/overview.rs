//! What asks for attention, in numbers.

use super::frame::Section;
use super::view::{self, Tone};
use super::{Answer, Visit, engines, leases, syncs, tenants};
use crate::api::Engine;
use crate::api::lease::Phase;
use crate::vault::reply::Refusal;
use maud::{Markup, html};

/// Most that is counted; lists have pages.
const MOST: usize = 1000;

/// One kind of thing: how many there are, and how many of them somebody should look at.
struct Count {
    section: Section,
    all: usize,
    good: (usize, &'static str),
    bad: (usize, &'static str),
}

/// `GET /admin`.
pub async fn page(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let counts = [
        of_engines(visit).await?,
        of_leases(visit).await?,
        of_tenants(visit).await?,
        of_syncs(visit).await?,
    ];
    let body = html! {
        h1 { "Overview" }
        ul.cards {
            @for count in &counts { li { (card(count)) } }
        }
        p.hint {
            "Shown is what the policies of this tenant let you see. You are signed in until "
            (view::at(Some(visit.session.ends))) "."
        }
    };
    Ok(visit.page("Overview", Section::Overview, &body))
}

fn card(count: &Count) -> Markup {
    let (tone, word) = match count {
        Count { bad: (bad, word), .. } if *bad > 0 => (Tone::Bad, format!("{bad} {word}")),
        Count { all: 0, .. } => (Tone::Off, "None".to_owned()),
        _ => (Tone::Good, "In order".to_owned()),
    };
    html! {
        h2 { a href=(count.section.path()) { (count.section.name()) } }
        p.number { (count.good.0) " " span { "of " (count.all) " " (count.good.1) } }
        p { (view::state(tone, &word)) }
    }
}

async fn of_engines(visit: &Visit<'_>) -> Result<Count, Refusal> {
    let all = engines::engines(visit).await?;
    let is_connected = |engine: &&Engine| {
        let conditions = engine.status.as_ref().map(|status| status.conditions.as_slice());
        view::ready(conditions.unwrap_or_default()).0 == Tone::Good
    };
    let good = all.iter().filter(is_connected).count();
    Ok(Count {
        section: Section::Engines,
        all: all.len(),
        good: (good, "connected"),
        bad: (all.len() - good, "not connected"),
    })
}

async fn of_leases(visit: &Visit<'_>) -> Result<Count, Refusal> {
    let all = leases::leases(visit).await?;
    let of = |phase: Phase| all.iter().filter(|seen| seen.phase() == phase).count();
    Ok(Count {
        section: Section::Leases,
        all: all.len(),
        good: (of(Phase::Issued), "issued"),
        bad: (of(Phase::Blocked), "blocked"),
    })
}

async fn of_tenants(visit: &Visit<'_>) -> Result<Count, Refusal> {
    let page = tenants::read(visit, ("", false), (0, MOST)).await?;
    let states = tenants::states(visit).await?;
    let tones = view::records(&page).iter().map(|model| {
        let state = states.get(&view::text_in(model, "dsvTenantId"));
        state.map_or(Tone::Waits, |(tone, _, _)| *tone)
    });
    let tones: Vec<Tone> = tones.collect();
    Ok(of_tones(Section::Tenants, &tones, ("connected", "with trouble")))
}

async fn of_syncs(visit: &Visit<'_>) -> Result<Count, Refusal> {
    let page = syncs::read(visit, None, (0, MOST)).await?;
    let tones: Vec<Tone> = view::records(&page)
        .iter()
        .map(|model| syncs::state_of(model).0)
        .collect();
    Ok(of_tones(Section::Syncs, &tones, ("in step", "failed")))
}

fn of_tones(section: Section, tones: &[Tone], (good, bad): (&'static str, &'static str)) -> Count {
    let of = |tone: Tone| tones.iter().filter(|other| **other == tone).count();
    Count {
        section,
        all: tones.len(),
        good: (of(Tone::Good), good),
        bad: (of(Tone::Bad), bad),
    }
}
