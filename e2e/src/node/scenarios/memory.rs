//! What operator and engines need of memory.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::node::world::{LIMIT, SHOP, World, dynamic_secret};

const MANY: usize = 100;

/// With what the scenarios before it left.
pub fn idle(world: &World) -> Result<()> {
    told(world, "with a handful of DynamicSecrets")
}

/// With a hundred more, all issued; they are deleted again.
pub fn busy(world: &World) -> Result<()> {
    let name = |number: usize| format!("many-{number}");
    let all: Vec<Value> = (0..MANY)
        .map(|number| {
            let mut one = dynamic_secret(&name(number), &json!({}));
            if let Some(metadata) = one.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                metadata.insert("labels".to_owned(), json!({"many": "true"}));
            }
            one
        })
        .collect();
    let start = std::time::Instant::now();
    world.apply(&all)?;
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    let which = ["dynamicsecrets", "-n", SHOP, "-l", "many=true"];
    world.kubectl(&[&["wait"], &which[..], &["--for=condition=Ready", &limit]].concat())?;
    world.figure(
        &format!("from kubectl apply of {MANY} DynamicSecrets until all are ready"),
        start.elapsed(),
    );
    told(world, &format!("with {MANY} more"))?;
    // Each is on the books until its deadline has passed; nobody has to wait for that here.
    world
        .kubectl(&[&["delete"], &which[..], &["--wait=false"]].concat())
        .map(drop)
}

/// Notes the memory of the operators, and of the engines if there are any yet.
pub fn told(world: &World, when: &str) -> Result<()> {
    for program in ["dsv-operator", "dsv-engine"] {
        let sizes = resident(program)?;
        let Some(most) = sizes.iter().max() else {
            ensure!(program == "dsv-engine", "no operator runs");
            continue;
        };
        ensure!(*most > 0, "{program} has no memory");
        world.note(format!("memory of the largest {program}, {when}: {} MB", most / 1024));
    }
    Ok(())
}

/// Resident memory of all processes of a program, in kB. All that run here are in our own table of processes.
fn resident(program: &str) -> Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let status = fs::read_to_string(entry?.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:") == Some(program)
            && let Some(size) = field("VmRSS:").and_then(|text| text.split_whitespace().next())
        {
            sizes.push(size.parse()?);
        }
    }
    Ok(sizes)
}
