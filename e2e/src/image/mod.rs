//! Container images of the programs, made without a container engine: a static program, the authorities of the web, and
//! nothing else. The same source gives the same bytes.

mod arch;
mod blob;
pub mod dist;
mod layer;
mod layout;
mod release;
mod sbom;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;

use crate::places;
use crate::say::say;
pub use arch::Arch;
use layer::{File, Layer, pack};
use layout::Description;
use release::Source;

/// The tag of all images.
pub const TAG: &str = env!("CARGO_PKG_VERSION");
/// The environment of the operator, which its processes in the scenarios have too: what it measures, it measures as released.
/// The C library's allocator gives each thread memory of its own, and what one took for a moment, when thousands of objects
/// were listed, no other can use; with one for all that is there once. The second setting keeps it from raising, with each
/// large buffer that it frees, the size from which buffers go back to the kernel (mallopt(3): M_TRIM_THRESHOLD).
pub const OPERATOR_ENV: &[(&str, &str)] = &[("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];
/// Nobody's number on any machine, and the one that managed engines run as.
const USER: &str = "65532:65532";
/// Images are pulled to every node of a cluster: more than this is a mistake.
const LARGEST: usize = 15_000_000;

/// An image on disk.
pub struct Image {
    /// Without registry and tag.
    pub name: &'static str,
    /// The layout in a tar.
    pub file: PathBuf,
    /// As a registry would know it.
    pub digest: String,
    /// Bytes of the tar.
    pub size: usize,
}

struct Recipe {
    name: &'static str,
    title: &'static str,
    program: &'static str,
    /// Further programs of ours that lie beside it.
    beside: &'static [&'static str],
    entrypoint: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const PRODUCT: [Recipe; 2] = [
    Recipe {
        name: "dsv-operator",
        title: "Issues PostgreSQL accounts just in time and takes them back on time.",
        program: "dsv-operator",
        beside: &[],
        entrypoint: &["/dsv-operator"],
        env: OPERATOR_ENV,
    },
    Recipe {
        name: "dsv-engine",
        title: "Runs the SQL of a dsv-operator; dials out and needs no open port.",
        program: "dsv-engine",
        beside: &[],
        entrypoint: &["/dsv-engine"],
        env: &[],
    },
];

/// What the scenarios on a node need besides: an application, and what holds the namespaces of a pod.
const SCENARIOS: [Recipe; 2] = [
    Recipe {
        name: "dsv-client",
        title: "An application that reads rows with the credential of a Secret, or of the plugin beside it.",
        program: "dsv-client",
        beside: &["kubectl-dsv"],
        entrypoint: &["/dsv-client"],
        env: &[],
    },
    Recipe {
        name: "dsv-pause",
        title: "Holds the namespaces of a pod.",
        program: "dsv-client",
        beside: &[],
        entrypoint: &["/dsv-client", "pause"],
        env: &[],
    },
];

/// Builds the programs and writes the images of the product into `target/images`, those for another processor into a folder
/// of its name there.
pub fn make(arch: Arch) -> Result<Vec<Image>> {
    make_of(PRODUCT.iter(), arch)
}

/// The same for this machine, with those of the scenarios.
pub fn make_all() -> Result<Vec<Image>> {
    make_of(PRODUCT.iter().chain(&SCENARIOS), Arch::own()?)
}

/// Where what is built for a processor is put.
fn output(name: &str, arch: Arch) -> Result<PathBuf> {
    let folder = places::target_dir()?.join(name);
    let folder = if arch == Arch::own()? {
        folder
    } else {
        folder.join(arch.name())
    };
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn make_of<'a>(recipes: impl Iterator<Item = &'a Recipe>, arch: Arch) -> Result<Vec<Image>> {
    let source = Source::look();
    let programs = release::build(&source, arch)?;
    let folder = output("images", arch)?;
    let base = pack(&base_files()?, source.time)?;
    let mut images = Vec::new();
    let mut layers = vec![base];
    for recipe in recipes {
        layers.truncate(1);
        layers.push(program_layer(&programs, recipe, source.time)?);
        images.push(write(recipe, &layers, &source, arch, &folder)?);
    }
    Ok(images)
}

fn write(recipe: &Recipe, layers: &[Layer], source: &Source, arch: Arch, folder: &Path) -> Result<Image> {
    let description = Description {
        name: recipe.name,
        tag: TAG,
        architecture: arch.name(),
        entrypoint: recipe.entrypoint.to_vec(),
        env: recipe.env,
        user: USER,
        labels: labels(recipe, source),
        time: source.time,
    };
    let layout = description.layout(layers)?;
    let size = layout.tar.len();
    ensure!(
        size <= LARGEST,
        "the image {} has {size} bytes, and more than {LARGEST} are too many",
        recipe.name
    );
    let file = folder.join(format!("{}.tar", recipe.name));
    fs::write(&file, layout.tar).with_context(|| format!("cannot write {}", file.display()))?;
    say(format!(
        "{} {:.1} MB {}",
        file.display(),
        megabytes(size),
        layout.digest
    ));
    Ok(Image {
        name: recipe.name,
        file,
        digest: layout.digest,
        size,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

fn labels(recipe: &Recipe, source: &Source) -> BTreeMap<&'static str, String> {
    [
        ("org.opencontainers.image.title", recipe.name.to_owned()),
        ("org.opencontainers.image.description", recipe.title.to_owned()),
        ("org.opencontainers.image.version", TAG.to_owned()),
        ("org.opencontainers.image.revision", source.commit.clone()),
        ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
    ]
    .into()
}

fn program_layer(programs: &Path, recipe: &Recipe, time: u64) -> Result<Layer> {
    let mut files = Vec::new();
    for name in std::iter::once(&recipe.program).chain(recipe.beside) {
        let path = programs.join(name);
        let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(is_static(&data), "{} needs libraries of a machine", path.display());
        files.push(File {
            path: (*name).to_owned(),
            mode: 0o755,
            data,
        });
    }
    pack(&files, time)
}

/// A dynamic program names the loader that starts it; a static one has no such segment (ELF64, little endian).
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let segments = || {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|index| number(table + index * size, 4))
            .collect::<Option<Vec<usize>>>()
    };
    program.starts_with(b"\x7fELF\x02\x01") && segments().is_some_and(|kinds| !kinds.contains(&(INTERPRETER as usize)))
}

fn base_files() -> Result<[File; 4]> {
    let text = |path: &str, text: &str| File {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
    };
    Ok([
        text("etc/passwd", "dsv:x:65532:65532:dsv:/:/nonexistent\n"),
        text("etc/group", "dsv:x:65532:\n"),
        // Without it the C library asks DNS before the file that Kubernetes writes host aliases into.
        text("etc/nsswitch.conf", "hosts: files dns\n"),
        text("etc/ssl/certs/ca-certificates.crt", &authorities()?),
    ])
}

/// The web's authorities, as Mozilla lists them; `Cargo.lock` says which list.
fn authorities() -> Result<String> {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        writeln!(pem, "-----BEGIN CERTIFICATE-----")?;
        let text = BASE64.encode(certificate);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            writeln!(pem, "{line}")?;
            rest = after;
        }
        writeln!(pem, "-----END CERTIFICATE-----")?;
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh"));
    }

    #[test]
    fn the_authorities_are_a_bundle() {
        let text = authorities().unwrap();
        assert!(text.matches("BEGIN CERTIFICATE").count() > 100);
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
