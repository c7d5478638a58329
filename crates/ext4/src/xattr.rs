//! Where extended attributes are stored: in the inode, and in a block of their own that is read and emptied, but not
//! filled. A write takes a file's capabilities away (F89, A4.9), and an inode that is deleted leaves its block (F86).

use ext4_format::Pblk;
use ext4_format::xattr::{self, XattrHeader};

use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::{Error, Result};

/// F80: the prefix `security.`.
pub(crate) const SECURITY: u8 = 6;
pub(crate) const CAPABILITY: &[u8] = b"capability";

impl Fs {
    /// Whether a file has `security.capability`, which a write must remove. Remembered per inode. The caller holds the lock of
    /// attributes exclusive.
    pub(crate) fn has_capability(&self, inode: &Inode) -> Result<bool> {
        let (known, block, in_inode) = {
            let state = inode.state.lock();
            let list = xattr::list_of_inode(state.disk.xattr_area());
            let found = list.map(find).transpose();
            (state.has_capability, Pblk(state.disk.file_acl), found)
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let corrupt = |corrupt| Error::corrupt_inode(inode.ino.0, corrupt);
        let mut found = in_inode.map_err(corrupt)?.unwrap_or(false);
        if !found && block.0 != 0 {
            let image = self.read_xattr_block(block)?;
            found = find(&image[XattrHeader::SIZE..])
                .map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
        }
        inode.state.lock().has_capability = Some(found);
        Ok(found)
    }

    /// Whether a write may have to strip capabilities, from memory alone: an attribute block nobody looked into counts.
    pub(crate) fn may_have_capability(state: &crate::inode::InodeState) -> bool {
        state.has_capability.unwrap_or_else(|| {
            state.disk.file_acl != 0
                || xattr::list_of_inode(state.disk.xattr_area())
                    .is_some_and(|list| find(list).unwrap_or(true))
        })
    }

    pub(crate) fn read_xattr_block(&self, block: Pblk) -> Result<Image> {
        let image = self.read_metadata(block, BlockKind::Xattr)?;
        XattrHeader::decode(&image, None, block).map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
        Ok(image)
    }

    /// Removes `security.capability` wherever it is. The caller holds the lock of attributes exclusive.
    pub(crate) fn remove_capability(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<()> {
        self.remove_from_block(handle, inode, SECURITY, CAPABILITY)?;
        self.remove_from_inode(handle, inode, SECURITY, CAPABILITY)?;
        inode.state.lock().has_capability = Some(false);
        Ok(())
    }

    /// Removes a name from the inode's own list, if it is there.
    pub(crate) fn remove_from_inode(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        name_index: u8,
        name: &[u8],
    ) -> Result<()> {
        let corrupt = |corrupt| Error::corrupt_inode(inode.ino.0, corrupt);
        handle.change_inode(inode, Change::Attributes, |state| {
            let list = xattr::list_of_inode(state.disk.xattr_area());
            let kept = list.map(|list| xattr::without(list, 0, name_index, name)).transpose();
            if let Some(kept) = kept.map_err(corrupt)?.flatten() {
                xattr::put_list_of_inode(state.disk.xattr_area_mut(), &kept);
            }
            Ok(())
        })?
    }

    /// Removes a name from the inode's block, if it is there; a block without names is freed. ENOSPC, and nothing changed, if a shared block has to be copied and there is no room.
    pub(crate) fn remove_from_block(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        name_index: u8,
        name: &[u8],
    ) -> Result<()> {
        let _counts = self.xattr_counts.lock();
        let block = Pblk(inode.state.lock().disk.file_acl);
        if block.0 == 0 {
            return Ok(());
        }
        let image = self.read_xattr_block(block)?;
        let corrupt = |corrupt| Error::corrupt_block(block.0, corrupt);
        let list = &image[XattrHeader::SIZE..];
        let Some(kept) = xattr::without(list, XattrHeader::SIZE, name_index, name).map_err(corrupt)? else {
            return Ok(());
        };
        if kept.iter().all(|&byte| byte == 0) {
            return self.release_counted(handle, inode);
        }
        // A shared block stays as it is for the others: this inode gets one of its own (F86).
        let header = XattrHeader::decode(&image, None, block).map_err(corrupt)?;
        let shared = header.refcount > 1;
        let own = if shared {
            handle.allocate_block(BlockOwner { ino: inode.ino, goal: block, below_2_32: false })?
        } else {
            block
        };
        let mut write = |bytes: &mut [u8]| {
            XattrHeader { refcount: 1, blocks: 1, hash: 0, checksum: 0 }.encode_into(bytes);
            bytes[XattrHeader::SIZE..].copy_from_slice(&kept);
        };
        if !shared {
            return handle.update(block, BlockKind::Xattr, &mut write);
        }
        handle.create(own, BlockKind::Xattr, &mut write)?;
        let fewer = XattrHeader { refcount: header.refcount - 1, ..header };
        handle.update(block, BlockKind::Xattr, &mut |bytes| fewer.encode_into(bytes))?;
        handle.change_inode(inode, Change::Attributes, |state| state.disk.file_acl = own.0)
    }

    /// F86: the last user of an xattr block frees it, another one lowers its count.
    pub(crate) fn release_xattr_block(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<()> {
        let _counts = self.xattr_counts.lock();
        self.release_counted(handle, inode)
    }

    /// The same; the caller holds the lock of the counts.
    fn release_counted(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<()> {
        let block = Pblk(inode.state.lock().disk.file_acl);
        if block.0 == 0 {
            return Ok(());
        }
        let image = self.read_xattr_block(block)?;
        let header = XattrHeader::decode(&image, None, block)
            .map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
        if header.refcount > 1 {
            let fewer = XattrHeader { refcount: header.refcount - 1, ..header };
            handle.update(block, BlockKind::Xattr, &mut |bytes| fewer.encode_into(bytes))?;
        } else {
            handle.free_block(block, inode.ino)?;
        }
        let sectors = (self.block_size() / 512) as u64;
        handle.change_inode(inode, Change::Attributes, |state| {
            state.disk.file_acl = 0;
            state.disk.blocks = state.disk.blocks.saturating_sub(sectors);
        })
    }
}

fn find(list: &[u8]) -> ext4_format::Result<bool> {
    Ok(xattr::find(list, SECURITY, CAPABILITY)?.is_some())
}
