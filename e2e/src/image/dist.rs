//! Archives for machines without a cluster: the engine with what a service needs, and the plugin of kubectl.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::blob::digest;
use super::layer::{File, pack};
use super::release::{self, Source};
use super::sbom;
use super::{TAG, architecture};
use crate::places;
use crate::say::say;

/// A program, and the files of the workspace that go with it.
const ARCHIVES: [(&str, &[&str]); 2] = [
    (
        "dsv-engine",
        &["packaging/dsv-engine.service", "packaging/INSTALL.md", "LICENSE"],
    ),
    ("kubectl-dsv", &["LICENSE"]),
];

/// Builds the programs and writes the archives, their hashes and the list of components into `target/dist`.
pub fn make() -> Result<()> {
    let source = Source::look();
    let programs = release::build(&source)?;
    let folder = places::target_dir()?.join("dist");
    fs::create_dir_all(&folder)?;
    let mut sums = String::new();
    for (program, beside) in ARCHIVES {
        let name = format!("{program}-{TAG}-linux-{}.tar.gz", architecture());
        let archive = pack(&files(&programs, program, beside)?, source.time)?.blob;
        write(&folder, &name, &archive.data, &mut sums)?;
    }
    let components = serde_json::to_vec_pretty(&sbom::of("dsv-operator")?)?;
    write(&folder, "sbom.cdx.json", &components, &mut sums)?;
    Ok(fs::write(folder.join("SHA256SUMS"), sums)?)
}

fn files(programs: &Path, program: &str, beside: &[&str]) -> Result<Vec<File>> {
    let folder = format!("{program}-{TAG}");
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = vec![File {
        path: format!("{folder}/{program}"),
        mode: 0o755,
        data: read(&programs.join(program))?,
    }];
    for path in beside {
        let name = path.rsplit_once('/').map_or(*path, |(_, name)| name);
        files.push(File {
            path: format!("{folder}/{name}"),
            mode: 0o644,
            data: read(&places::workspace().join(path))?,
        });
    }
    Ok(files)
}

fn write(folder: &Path, name: &str, data: &[u8], sums: &mut String) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))?;
    let hash = digest(data);
    writeln!(sums, "{}  {name}", hash.trim_start_matches("sha256:"))?;
    say(format!("{} {} bytes", path.display(), data.len()));
    Ok(())
}
