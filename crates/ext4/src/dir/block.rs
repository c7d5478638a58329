//! Changes within one leaf. The block was checked when the place of the change was found.

use ext4_format::dirent::{DirFormat, Dirent, file_type, record_size};
use ext4_format::{Corrupt, Ino};

use super::{Entry, Found, NewEntry};

/// Finds a name in a leaf. The whole block is judged only as far as it is read.
pub(crate) fn find(
    format: DirFormat,
    block: &[u8],
    lblk: u32,
    name: &[u8],
) -> std::result::Result<Option<Found>, Corrupt> {
    let mut previous = None;
    for record in format.records(block) {
        let record = record?;
        if record.ino.0 != 0 && record.name == name {
            let entry = Entry { ino: record.ino, file_type: record.file_type, lblk };
            return Ok(Some(Found { entry, offset: record.offset, previous }));
        }
        previous = Some(record.offset);
    }
    Ok(None)
}

/// The first record with room for a name of `name_len` bytes behind its own; `None` if there is none.
pub(crate) fn find_room(
    format: DirFormat,
    block: &[u8],
    name_len: usize,
) -> std::result::Result<Option<usize>, Corrupt> {
    for record in format.records(block) {
        let record = record?;
        if record.slack() >= record_size(name_len) {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

/// Puts an entry into the slack of the record at `offset`, found by [`find_room`].
pub(crate) fn add(format: DirFormat, block: &mut [u8], offset: usize, new: NewEntry<'_>) {
    let host = format.decode(block, offset, format.records_end()).expect("checked by find_room");
    let (slack, rec_len) = (host.slack(), host.rec_len);
    if slack < rec_len {
        format.set_rec_len(block, offset, rec_len - slack);
    }
    let entry = Dirent {
        offset: offset + rec_len - slack,
        rec_len: slack,
        ino: new.ino,
        file_type: new.file_type,
        name: new.name,
    };
    format.encode(block, &entry);
}

/// F65: gives the record to the one before it; the first one becomes unused.
pub(crate) fn remove(format: DirFormat, block: &mut [u8], found: &Found) {
    let end = format.records_end();
    let rec_len = |block: &[u8], offset| {
        format.decode(block, offset, end).expect("checked when the name was found").rec_len
    };
    let own = rec_len(block, found.offset);
    match found.previous {
        Some(previous) => {
            let merged = rec_len(block, previous) + own;
            block[found.offset..found.offset + own].fill(0);
            format.set_rec_len(block, previous, merged);
        }
        None => {
            block[..own].fill(0);
            format.set_rec_len(block, 0, own);
        }
    }
}

/// F65: "." and "..", which ends at `end`.
pub(crate) fn write_dots(format: DirFormat, block: &mut [u8], own: Ino, parent: Ino, end: usize) {
    let dot = Dirent { offset: 0, rec_len: 12, ino: own, file_type: file_type::DIR, name: b"." };
    format.encode(block, &dot);
    format.encode(block, &Dirent { offset: 12, rec_len: end - 12, ino: parent, name: b"..", ..dot });
}
