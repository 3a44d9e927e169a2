//! Follows a page as a reader does: its commands in their order, each followed by what the page says it prints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::say::say;
use regex::{Captures, Regex};

use super::tenant;
use super::text::page;
use super::world::World;

const PAGE: &str = "docs/tutorial.md";
/// Some states are a moment away from the command that leads to them.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
/// Commands that need what a test has not: images in a registry, and psql.
const BY_HAND: usize = 2;

#[derive(Debug, PartialEq, Eq)]
enum Block {
    Commands(String),
    /// What the commands before it print.
    Shown(String),
    /// What the database's administrator runs in the database `orders`.
    Sql(String),
    ByHand,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        let text = text.trim_end().to_owned();
        blocks.push(match language {
            "bash" if before.ends_with("<!-- by hand -->") => Block::ByHand,
            "bash" => Block::Commands(text),
            "text" => Block::Shown(text),
            "sql" => Block::Sql(text),
            other => panic!("{PAGE} has a block in {other:?}, which nobody runs"),
        });
        rest = after;
    }
    blocks
}

/// Takes out what differs with each run: ages, times, hashes, addresses, and the width of columns.
fn steady(text: &str) -> Vec<String> {
    let rules = [
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\b", "TIME"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UID"),
        (r"[a-z2-7]{26}\b", "HASH"),
        (r"-[a-z2-7]{16}\b", "-HASH"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"-[a-z2-7]{5}-(\d+)\b", "-HASH-$1"),
        (r"\b\d+[smh](\d+[smh])?\b", "AGE"),
        (r"\b\d{5,}\b", "NUMBER"),
        (r"\bPostgreSQL \d\d(\.\d+)?", "PostgreSQL"),
    ];
    let rules = rules.map(|(pattern, by)| (Regex::new(pattern).unwrap(), by));
    let line = |line: &str| {
        let spaces: Vec<&str> = line.split_whitespace().collect();
        let mut line = spaces.join(" ");
        for (pattern, by) in &rules {
            line = pattern.replace_all(&line, *by).into_owned();
        }
        line
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

/// Whether all of it was printed. A line `...` stands for any lines.
fn agree(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|skip| agree(rest, &printed[skip..])),
        Some((first, rest)) => printed.first() == Some(first) && agree(rest, &printed[1..]),
    }
}

/// Whether a block may be run again: it only looks.
fn only_looks(commands: &str) -> bool {
    let last = commands.lines().last().unwrap_or_default();
    [
        "kubectl get ",
        "kubectl -n billing get ",
        "kubectl -n billing describe ",
        "kubectl -n bank describe ",
    ]
    .iter()
    .any(|look| last.starts_with(look))
}

/// Runs the whole page.
pub async fn follow(world: &World) {
    let page = page(PAGE);
    let blocks = blocks(&page);
    let by_hand = blocks.iter().filter(|block| **block == Block::ByHand).count();
    assert_eq!(
        by_hand, BY_HAND,
        "each command of {PAGE} that no test runs has to be meant"
    );
    let engines = world.run_engines().await.unwrap();
    let mut last: Option<(String, String)> = None;
    let mut wrong = Vec::new();
    let mut accounts = Accounts::default();
    for block in blocks {
        match block {
            Block::ByHand => {}
            Block::Sql(sql) => world.administer(&accounts.fill_in(&sql)).await.unwrap(),
            Block::Commands(commands) => {
                let mut commands = world.fill_in(&commands);
                if commands.contains("$CLIENT_ID") {
                    commands = format!("{}\n{commands}", tenant::client(world));
                }
                let printed = world.bash("tutorial", &commands).unwrap();
                if commands.contains("jsonpath='{.data.uri}'") {
                    world.log_in_as("billing", "invoices").await.unwrap();
                }
                last = Some((commands, printed));
            }
            Block::Shown(shown) => {
                let (commands, printed) = last.take().expect("something is shown that nothing printed");
                match compare(world, &shown, &commands, printed).await {
                    Ok(printed) => accounts.learn(&shown, &printed),
                    Err(difference) => wrong.push(difference),
                }
            }
        }
    }
    drop(engines);
    assert!(wrong.is_empty(), "{PAGE} shows what is not so:\n{}", wrong.join("\n\n"));
}

/// Accounts are called otherwise in each run. What a name on the page stands for is told by the blocks that show it.
#[derive(Default)]
struct Accounts(BTreeMap<String, String>);

impl Accounts {
    /// From a block that shows all of what was printed.
    fn learn(&mut self, shown: &str, printed: &str) {
        let name = Regex::new(r"\bbill_[a-z]+_[a-z2-7]{26}\b").unwrap();
        let names = |text: &str| {
            name.find_iter(text)
                .map(|found| found.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        let (shown, printed) = (names(shown), names(printed));
        if shown.len() == printed.len() {
            self.0.extend(shown.into_iter().zip(printed));
        }
    }

    /// SQL of the page with the names of this run.
    fn fill_in(&self, sql: &str) -> String {
        let name = Regex::new(r"\bbill_[a-z]+_[a-z2-7]{26}\b").unwrap();
        let real = |found: &Captures<'_>| {
            let known = self.0.get(&found[0]);
            known
                .unwrap_or_else(|| panic!("no block of {PAGE} shows what account {} is", &found[0]))
                .clone()
        };
        name.replace_all(sql, real).into_owned()
    }
}

/// What was printed in the end, or how it differs.
async fn compare(world: &World, shown: &str, commands: &str, first: String) -> Result<String, String> {
    let start = Instant::now();
    let mut printed = first;
    let look = commands.lines().last().unwrap_or_default();
    loop {
        printed = world.as_on_the_pages(&printed);
        // Whatever the commands before the last one printed is not shown.
        let lines = steady(&printed);
        let expected = steady(shown);
        let from = lines.len().saturating_sub(if expected.contains(&"...".to_owned()) {
            lines.len()
        } else {
            expected.len()
        });
        if agree(&expected, &lines[from..]) {
            return Ok(printed);
        }
        if !only_looks(commands) || start.elapsed() > LIMIT {
            say(format!("after\n{commands}\nthis was printed:\n{printed}"));
            return Err(format!("shown:\n{shown}\nprinted:\n{printed}"));
        }
        tokio::time::sleep(POLL).await;
        printed = world.bash("again", look).unwrap();
    }
}

#[test]
fn what_differs_with_each_run_is_left_out_and_nothing_else() {
    let one =
        steady("NAME   USER\nmine-abcde-12   bill_invoices_aaaabbbbccccddddeeeeffff22   2026-11-22T19:00:00Z   5s");
    let other = steady("NAME USER\nmine-zzzzz-12 bill_invoices_zzzzyyyybbbbccccddddeeee77 2027-01-02T03:04:05Z 2m10s");
    assert_eq!(one, other);
    assert_ne!(steady("mine True"), steady("mine False"));
    assert_ne!(steady("mine-abcde-1"), steady("mine-abcde-2"));
}

#[test]
fn the_account_on_the_page_stands_for_the_one_of_this_run() {
    let (page, here) = ("a".repeat(26), "b".repeat(26));
    let mut accounts = Accounts::default();
    accounts.learn(&format!("mine bill_app_{page}"), &format!("mine bill_app_{here}"));
    accounts.learn("...", "bill_app_nothing");
    let sql = accounts.fill_in(&format!("DROP OWNED BY \"bill_app_{page}\";"));
    assert_eq!(sql, format!("DROP OWNED BY \"bill_app_{here}\";"));
}

#[test]
fn lines_that_are_left_out_are_marked() {
    let lines = |text: &str| steady(text);
    assert!(agree(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
    assert!(agree(&lines("...\nd"), &lines("d")));
    assert!(!agree(&lines("a\nd"), &lines("a\nb\nd")));
    assert!(!agree(&lines("a\n...\nd"), &lines("a\nb")));
}
