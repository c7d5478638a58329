//! F67–F73: the index of a directory, with the algorithms of fs/ext4/namei.c's dx_ functions.

mod convert;
mod cursor;
mod insert;
mod leaf;
mod lookup;

pub(crate) use convert::convert;
pub(crate) use cursor::Cursor;
pub(crate) use insert::insert;
pub(crate) use lookup::{find, is_empty};

/// F73: levels of index blocks, the root among them.
pub(crate) const fn max_levels(large_dir: bool) -> u32 {
    if large_dir { 3 } else { 2 }
}
