//! What a program says of itself when asked for its version.

use super::logs::commit;
use crate::channel::frames::{PROTOCOL_MAX, PROTOCOL_MIN};
use std::sync::LazyLock;

/// Release, commit, kind of build, and the versions of the channel's protocol that it speaks. The same source gives the same
/// words, so nothing of the time or the machine is in it.
pub fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        format!(
            "{} (commit {}, {build} build, protocol {PROTOCOL_MIN} to {PROTOCOL_MAX})",
            env!("CARGO_PKG_VERSION"),
            commit()
        )
    });
    &TEXT
}
