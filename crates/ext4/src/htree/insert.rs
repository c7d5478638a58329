//! Adding names to an index.

use crate::dir::{self, DirBlocks, DirParams, NewEntry};
use crate::error::errno;
use crate::{Error, Result};

pub(crate) fn convert(dir: &mut dyn DirBlocks, params: &DirParams, new: NewEntry<'_>) -> Result<()> {
    dir::append_linear(dir, params, new)
}

pub(crate) fn insert(_: &mut dyn DirBlocks, _: &DirParams, _: NewEntry<'_>) -> Result<()> {
    Err(Error::errno_only(errno::EOPNOTSUPP))
}
