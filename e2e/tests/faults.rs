//! A few rows of the fault matrix, which `make faults` plays in full, and what must hold for the programs that it uses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use e2e::faults::blows::Blow;
use e2e::faults::lane::{self, Lane};
use e2e::faults::{matrix, round};
use e2e::places;
use e2e::postgres::Major;
use e2e::say::say;

/// One fault of each kind that needs no long wait.
const SMALL: [&str; 3] = [
    "kill -9 everybody",
    "API answer lost, each write once",
    "database connections cut",
];

#[tokio::test]
async fn nothing_is_left_of_a_few_faults_at_every_step() {
    let stack = lane::stack(Major::of_this_machine()).await.unwrap();
    let lane = Lane::open(&stack).await.unwrap();
    for (number, name) in SMALL.into_iter().enumerate() {
        let blow = Blow::all().into_iter().find(|blow| blow.name() == name).unwrap();
        let outcome = round::play(&lane, &blow, number).await.unwrap();
        say(format!(
            "{name}: {} places, clean after {:?}",
            outcome.cells.len(),
            outcome.clean
        ));
        assert!(!outcome.cells.is_empty());
        let troubles = matrix::troubles(&outcome);
        assert!(troubles.is_empty(), "{name}:\n{}", troubles.join("\n"));
    }
}

#[test]
fn what_is_released_has_no_place_to_be_held_at() {
    let has = |program: &std::path::Path, word: &str| {
        let bytes = fs::read(program).unwrap();
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    let words = ["DSV_FAILPOINTS", "DSV_CLOCK"];
    let folder = places::target_dir().unwrap().join("faults");
    for (program, place) in [("dsv-operator", "deliver.written"), ("dsv-engine", "link.outcome-lost")] {
        let released = places::own_program(program).unwrap();
        for word in words.into_iter().chain([place]) {
            assert!(!has(&released, word), "{} has {word} in it", released.display());
            // Or the test would only show that it looks for the wrong words.
            assert!(
                has(&folder.join(program), word),
                "{program} with failpoints lacks {word}"
            );
        }
    }
}
