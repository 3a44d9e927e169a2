//! Processors that programs are built for: the machine's own, and the other one across.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cluster::find_on_path;
use crate::programs::debian;
use crate::say::say;

/// Named as images name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// This machine's.
    pub fn own() -> Result<Self> {
        let found = [Self::Amd64, Self::Arm64]
            .into_iter()
            .find(|arch| arch.processor() == std::env::consts::ARCH);
        found.with_context(|| format!("nothing is built for {}", std::env::consts::ARCH))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// In the words of compilers.
    fn processor(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's name of the target.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.processor())
    }

    /// The linker of another processor's programs, with all that building for it takes: installed where it is missing and
    /// can be had. `None` for the machine's own.
    pub fn linker(self) -> Result<Option<(String, String)>> {
        if self == Self::own()? {
            return Ok(None);
        }
        let gcc = format!("{}-linux-gnu-gcc", self.processor());
        if find_on_path(&gcc).is_none() {
            let packages = [
                format!("gcc-{}-linux-gnu", self.processor().replace('_', "-")),
                format!("libc6-dev-{}-cross", self.name()),
            ];
            debian::install(&packages.each_ref().map(String::as_str))
                .with_context(|| format!("programs for {} need a C compiler and library of it", self.name()))?;
        }
        self.standard_library()?;
        let variable = format!("CARGO_TARGET_{}_LINKER", self.target().replace('-', "_").to_uppercase());
        Ok(Some((variable, gcc)))
    }

    fn standard_library(self) -> Result<()> {
        let target = self.target();
        let print = ["--print", "target-libdir", "--target", &target];
        let output = Command::new("rustc").args(print).output().context("cannot run rustc")?;
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && std::path::Path::new(&folder).is_dir() {
            return Ok(());
        }
        say(format!("fetching Rust's standard library for {target}"));
        let added = Command::new("rustup").args(["target", "add", &target]).output();
        let by_hand = format!("Rust's standard library for {target} is needed: run `rustup target add {target}`");
        let output = added.with_context(|| by_hand.clone())?;
        ensure!(
            output.status.success(),
            "{by_hand} ({})",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_has_the_names_of_its_trades() {
        assert_eq!(Arch::Arm64.target(), "aarch64-unknown-linux-gnu");
        assert_eq!(Arch::Amd64.target(), "x86_64-unknown-linux-gnu");
        let own = Arch::own().unwrap();
        assert!(own.linker().unwrap().is_none(), "the machine's own compiler links");
    }
}
