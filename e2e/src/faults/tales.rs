//! Faults that are stories of their own instead of a blow at a step: what people do, accounts that resist, clocks.
//! A tale gets a name for its dynamic secrets, all of which begin with it; what it left is judged like everything else.

use anyhow::Result;
use futures::future::BoxFuture;

use super::lane::Lane;

/// One story. It ends with everything healed, and need not delete what it made.
#[derive(Clone, Copy)]
pub struct Tale {
    pub name: &'static str,
    /// Whether it breaks what others use, so that no other may be told at the same time.
    pub alone: bool,
    pub tell: for<'t> fn(&'t Lane<'t>, &'t str) -> BoxFuture<'t, Result<()>>,
}

impl std::fmt::Debug for Tale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// `tale!("what happens", function)`, and `alone = true` where it breaks what others use.
macro_rules! tale {
    ($name:literal, $tell:path) => {
        $crate::faults::tales::tale!($name, $tell, alone = false)
    };
    ($name:literal, $tell:path, alone = $alone:literal) => {
        $crate::faults::tales::Tale {
            name: $name,
            alone: $alone,
            tell: |lane, name| Box::pin($tell(lane, name)),
        }
    };
}
pub(super) use tale;

/// All of them.
pub fn all() -> Vec<Tale> {
    let mut all = super::people::tales();
    all.extend(super::resisting::tales());
    all.extend(super::clocks::tales());
    all.extend(super::servers::tales());
    all.extend(super::apart::tales());
    all.extend(super::many::tales());
    all
}
