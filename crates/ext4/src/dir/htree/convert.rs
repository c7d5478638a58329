//! F73: how a directory of one block becomes indexed.

use ext4_format::htree::{DxEntry, DxKind, RootInfo};

use crate::Result;
use crate::dir::{DirBlocks, DirParams, NewEntry, append_linear, dots, write_dots};
use crate::error::errno;

use super::leaf::{Halves, Leaf};

/// Makes the only block the root of an index, its names and `new` to the blocks after it. Without space for two
/// more blocks the directory gets one and stays linear; without any, ENOSPC.
pub(crate) fn convert(dir: &mut dyn DirBlocks, params: &DirParams, new: NewEntry<'_>) -> Result<()> {
    let format = params.format(dir);
    let [dot, dot_dot] = dots(dir, params)?;
    let image = dir.read(0, false)?;
    let leaf = Leaf::with_new(params, format, params.hash_version, &image, new)?;
    // A valid linear directory in itself, should there be no second block.
    append_linear(dir, params, new)?;
    let mut entries = vec![DxEntry { hash: 0, block: 1 }];
    let lower = if leaf.fits() {
        leaf
    } else {
        let Halves { lower, upper, key } = leaf.split();
        let appended =
            params.check_growth(dir, 1).and_then(|()| dir.append(false, &mut |bytes| upper.write(bytes)));
        match appended {
            Ok(block) => entries.push(DxEntry { hash: key, block }),
            Err(error) if error.errno() == errno::ENOSPC => return Ok(()),
            Err(error) => return Err(error),
        }
        lower
    };
    dir.set_indexed(true)?;
    dir.update(1, false, &mut |bytes| lower.write(bytes))?;
    let info = RootInfo { hash_version: params.hash_version.stored(), indirect_levels: 0 };
    dir.update(0, true, &mut |bytes| {
        bytes.fill(0);
        write_dots(format, bytes, dot.entry.ino, dot_dot.entry.ino, format.block_size);
        info.encode(bytes);
        DxKind::Root.encode(format, bytes, &entries);
    })
}
