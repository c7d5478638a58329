//! Finding names by their hash.

use ext4_format::htree::CONTINUATION;

use crate::Result;
use crate::dir::{DirBlocks, DirParams, Found, find_in_leaf, is_dot};

use super::Cursor;

/// F71: looks in the leaf of the name's hash, and in those that continue it.
pub(crate) fn find(dir: &dyn DirBlocks, params: &DirParams, name: &[u8]) -> Result<Option<Found>> {
    let format = params.format(dir);
    let mut cursor = Cursor::open(dir, params)?;
    let hash = cursor.version.hash(&params.hash_seed, name).hash;
    cursor.seek(dir, hash)?;
    loop {
        let lblk = cursor.leaf();
        let image = dir.read(lblk, false)?;
        let found = find_in_leaf(format, &image, lblk, name).map_err(|corrupt| params.corrupt(corrupt))?;
        if found.is_some() || cursor.next_key() != Some(hash | CONTINUATION) {
            return Ok(found);
        }
        cursor.advance(dir)?;
    }
}

/// Whether no leaf holds a name.
pub(crate) fn is_empty(dir: &dyn DirBlocks, params: &DirParams) -> Result<bool> {
    let format = params.format(dir);
    let mut cursor = Cursor::open(dir, params)?;
    cursor.seek(dir, 0)?;
    loop {
        let image = dir.read(cursor.leaf(), false)?;
        for record in format.records(&image) {
            let record = record.map_err(|corrupt| params.corrupt(corrupt))?;
            if record.ino.0 != 0 && !is_dot(record.name) {
                return Ok(false);
            }
        }
        if !cursor.advance(dir)? {
            return Ok(true);
        }
    }
}
