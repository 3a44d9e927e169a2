//! Making an engine's key on the machine where it will be used, so that no other ever sees it.

use crate::keys::{EngineKey, EngineKeyError, KeyTextError, RootHash};

/// Arguments of `dsv-engine keygen`.
#[derive(Debug, Clone, clap::Args)]
pub struct KeygenArgs {
    /// Hash of the installation's root key, from the status of the EnginePool
    #[arg(long)]
    pub root_hash: String,
    /// Namespace of the Engine
    #[arg(long, short)]
    pub namespace: String,
}

/// No key was made.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// The root hash.
    #[error("--root-hash cannot be used; copy it from the status of the EnginePool")]
    RootHash(#[source] KeyTextError),
    /// The namespace, or the machine.
    #[error("no engine key was made")]
    Key(#[source] EngineKeyError),
}

/// Makes a key.
pub fn keygen(args: &KeygenArgs) -> Result<EngineKey, KeygenError> {
    let root = args
        .root_hash
        .trim()
        .parse::<RootHash>()
        .map_err(KeygenError::RootHash)?;
    EngineKey::generate(root, &args.namespace).map_err(KeygenError::Key)
}
