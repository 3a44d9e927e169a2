//! Archives for machines without a cluster: the engine with what a service needs, and the plugin of kubectl.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::blob::digest;
use super::layer::{File, pack};
use super::release::{self, Source};
use super::sbom;
use super::{Arch, TAG, output};
use crate::places;
use crate::say::say;

/// A program, and the files of the workspace that go with it.
const ARCHIVES: [(&str, &[&str]); 2] = [
    (
        "dsv-engine",
        &["packaging/dsv-engine.service", "packaging/INSTALL.md", "LICENSE"],
    ),
    (PLUGIN, &["LICENSE"]),
];
const PLUGIN: &str = "kubectl-dsv";
/// Krew's manifest, with what only a build knows between braces.
const KREW: &str = include_str!("../../../packaging/krew.yaml");
/// Where archives are published, if nobody says.
const HOMEPAGE: &str = "https://example.com/dsv-operator";

/// Builds the programs and writes the archives, their hashes and the list of components into `target/dist`, or for another
/// processor into a folder of its name there.
pub fn make(arch: Arch) -> Result<()> {
    let source = Source::look();
    let programs = release::build(&source, arch)?;
    let folder = output("dist", arch)?;
    let mut sums = String::new();
    for (program, beside) in ARCHIVES {
        let name = format!("{program}-{TAG}-linux-{}.tar.gz", arch.name());
        let archive = pack(&files(&programs, program, beside)?, source.time)?.blob;
        write(&folder, &name, &archive.data, &mut sums)?;
        if program == PLUGIN {
            let manifest = krew(&name, &archive.data, arch);
            write(&folder, "dsv.yaml", manifest.as_bytes(), &mut sums)?;
        }
    }
    let components = serde_json::to_vec_pretty(&sbom::of("dsv-operator")?)?;
    write(&folder, "sbom.cdx.json", &components, &mut sums)?;
    Ok(fs::write(folder.join("SHA256SUMS"), sums)?)
}

/// Krew's manifest for an archive. `DIST_URL` is where the archives will be found.
fn krew(name: &str, archive: &[u8], arch: Arch) -> String {
    let homepage = std::env::var("DIST_URL").unwrap_or_else(|_| HOMEPAGE.to_owned());
    let hash = digest(archive);
    let values = [
        ("{version}", format!("v{TAG}")),
        ("{homepage}", homepage),
        ("{arch}", arch.name().to_owned()),
        ("{archive}", name.to_owned()),
        ("{sha256}", hash.trim_start_matches("sha256:").to_owned()),
        ("{folder}", format!("{PLUGIN}-{TAG}")),
    ];
    let start = KREW.find("apiVersion").unwrap_or_default();
    let manifest = KREW.get(start..).unwrap_or(KREW);
    values
        .iter()
        .fold(manifest.to_owned(), |text, (name, value)| text.replace(name, value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn krews_manifest_names_the_archive_its_hash_and_the_program_in_it() {
        let text = krew("kubectl-dsv-1-linux.tar.gz", b"archive", Arch::Arm64);
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let platform = &read["spec"]["platforms"][0];
        let hash = digest(b"archive");
        assert_eq!(platform["sha256"], hash.trim_start_matches("sha256:"));
        assert!(
            platform["uri"]
                .as_str()
                .unwrap()
                .ends_with("/kubectl-dsv-1-linux.tar.gz")
        );
        assert_eq!(platform["files"][0]["from"], format!("kubectl-dsv-{TAG}/kubectl-dsv"));
        assert_eq!(
            (&read["metadata"]["name"], &platform["bin"]),
            (&"dsv".into(), &"kubectl-dsv".into())
        );
        assert!(!text.contains('{') && !text.contains('#'), "{text}");
    }
}
