//! getxattr, setxattr, listxattr, removexattr. New values go into the inode alone: ENOSPC if they do not fit there.

use ext4_format::features::compat;
use ext4_format::inode::flags;
use ext4_format::xattr::{self, XattrEntry, XattrHeader};
use ext4_format::{Ino, Inode as DiskInode, Pblk};

use crate::credits::MAP_CREDITS;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Iget, Inode, InodeState};
use crate::xattr::{CAPABILITY, SECURITY};
use crate::{Error, Result, errno};

/// F80: prefixes and name indexes of the names that can be used; an ACL's name is all prefix.
const HANDLERS: [(&[u8], u8); 5] = [
    (b"user.", USER),
    (b"system.posix_acl_access", ACL_ACCESS),
    (b"system.posix_acl_default", ACL_DEFAULT),
    (b"trusted.", 4),
    (b"security.", SECURITY),
];
const USER: u8 = 1;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
/// Bytes of a value, as Linux takes them.
const SIZE_MAX: usize = 65536;

/// What setxattr(2) may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrSet {
    /// The name, or none.
    #[default]
    Either,
    /// XATTR_CREATE: no such name, else EEXIST.
    Create,
    /// XATTR_REPLACE: the name, else ENODATA.
    Replace,
}

/// A full name as ext4 stores it.
#[derive(Clone, Copy)]
struct Name<'a> {
    index: u8,
    suffix: &'a [u8],
}

impl<'a> Name<'a> {
    /// ERANGE for an empty or too long one, EOPNOTSUPP for an unknown prefix, EINVAL for a prefix alone or a zero
    /// byte.
    fn parse(full: &'a [u8]) -> Result<Self> {
        if full.is_empty() || full.len() > xattr::NAME_MAX {
            return Err(Error::errno_only(errno::ERANGE));
        }
        if full.contains(&0) {
            return Err(Error::errno_only(errno::EINVAL));
        }
        for (prefix, index) in HANDLERS {
            match full.strip_prefix(prefix) {
                Some(b"") if !is_acl(index) => return Err(Error::errno_only(errno::EINVAL)),
                Some(suffix) if suffix.is_empty() == is_acl(index) => return Ok(Self { index, suffix }),
                _ => {}
            }
        }
        Err(Error::errno_only(errno::EOPNOTSUPP))
    }

    /// What is remembered about capabilities may be so no more.
    fn changed(&self, state: &mut InodeState) {
        if self.index == SECURITY && self.suffix == CAPABILITY {
            state.has_capability = None;
        }
    }

    fn find<'l>(&self, list: &'l [u8]) -> ext4_format::Result<Option<XattrEntry<'l>>> {
        xattr::find(list, self.index, self.suffix)
    }
}

fn is_acl(index: u8) -> bool {
    index == ACL_ACCESS || index == ACL_DEFAULT
}

/// `user.` is for files and directories alone.
fn takes_user_names(inode: &Inode) -> bool {
    inode.is_regular() || inode.is_dir()
}

/// What an inode has of one name.
#[derive(Default)]
struct Places {
    in_inode: bool,
    in_block: bool,
}

impl Fs {
    /// getxattr(2): the value, an ACL's as it is stored (F88). ENODATA without it, ERANGE, EINVAL or EOPNOTSUPP for a name
    /// that can be none, EOPNOTSUPP for a value in an inode of its own.
    pub fn getxattr(&self, inode: &Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.check_alive()?;
        let name = Name::parse(name)?;
        if name.index == USER && !takes_user_names(inode) {
            return Err(Error::errno_only(errno::ENODATA));
        }
        let _xattrs = self.xattrs.read();
        let mut value = None;
        self.each_list(inode, &mut |list, bias| {
            if value.is_none()
                && let Some(entry) = name.find(list)?
            {
                value = Some(match entry.value_inum {
                    0 => Ok(xattr::value(list, bias, &entry)?.to_vec()),
                    inum => Err(Ino(inum)),
                });
            }
            Ok(())
        })?;
        match value {
            Some(Ok(value)) => Ok(value),
            // Damage is told as such.
            Some(Err(inum)) => self.iget(inum, Iget::Ea).and(Err(in_ea_inode())),
            None => Err(Error::errno_only(errno::ENODATA)),
        }
    }

    /// listxattr(2): full names, those in the inode first. Names of unknown prefixes are kept, but not listed (F80).
    pub fn listxattr(&self, inode: &Inode) -> Result<Vec<Vec<u8>>> {
        self.check_alive()?;
        let _xattrs = self.xattrs.read();
        let mut names = Vec::new();
        self.each_list(inode, &mut |list, _bias| {
            for entry in xattr::entries(list) {
                let entry = entry?;
                let handler = HANDLERS.iter().find(|(_, index)| *index == entry.name_index);
                if let Some((prefix, index)) = handler
                    && entry.name.is_empty() == is_acl(*index)
                {
                    names.push([prefix, entry.name].concat());
                }
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// setxattr(2), in one handle. The value must fit the inode (F82): ENOSPC otherwise, and in inodes of 128 bytes.
    /// One that was in the xattr block moves. EOPNOTSUPP for ACLs, whose effect on the mode is not built, and where
    /// the old value is in an inode of its own; E2BIG above 64 KiB; EPERM for `user.` on anything but files and
    /// directories, and on immutable and append-only inodes.
    pub fn setxattr(&self, inode: &Inode, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        self.check_writable()?;
        let name = self.check_xattr_change(inode, name)?;
        if is_acl(name.index) {
            return Err(Error::refused(errno::EOPNOTSUPP, "ACLs cannot be set"));
        }
        if value.len() > SIZE_MAX {
            return Err(Error::errno_only(errno::E2BIG));
        }
        let _xattrs = self.xattrs.write();
        let places = self.places(inode, name)?;
        let exists = places.in_inode || places.in_block;
        match how {
            XattrSet::Create if exists => return Err(Error::errno_only(errno::EEXIST)),
            XattrSet::Replace if !exists => return Err(Error::errno_only(errno::ENODATA)),
            _ => {}
        }
        let now = self.timestamp();
        let corrupt = |corrupt| Error::corrupt_inode(inode.ino.0, corrupt);
        self.with_handle(MAP_CREDITS, |handle| {
            // Before anything changes.
            list_with(&mut inode.state.lock().disk.clone(), name, value)
                .map_err(corrupt)?
                .ok_or_else(does_not_fit)?;
            if places.in_block {
                self.remove_from_block(handle, inode, name.index, name.suffix)?;
            }
            self.require_ext_attr(handle)?;
            handle.change_inode(inode, Change::Attributes, |state| {
                let list =
                    list_with(&mut state.disk, name, value).map_err(corrupt)?.ok_or_else(does_not_fit)?;
                xattr::put_list_of_inode(state.disk.xattr_area_mut(), &list);
                name.changed(state);
                state.disk.ctime = now;
                Ok(())
            })?
        })
    }

    /// removexattr(2), from the inode or its block, in one handle. ENODATA without it; EPERM as setxattr.
    pub fn removexattr(&self, inode: &Inode, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        let name = self.check_xattr_change(inode, name)?;
        let _xattrs = self.xattrs.write();
        let places = self.places(inode, name)?;
        if !places.in_inode && !places.in_block {
            return Err(Error::errno_only(errno::ENODATA));
        }
        let now = self.timestamp();
        self.with_handle(MAP_CREDITS, |handle| {
            if places.in_block {
                self.remove_from_block(handle, inode, name.index, name.suffix)?;
            }
            if places.in_inode {
                self.remove_from_inode(handle, inode, name.index, name.suffix)?;
            }
            handle.change_inode(inode, Change::Attributes, |state| {
                name.changed(state);
                state.disk.ctime = now;
            })
        })
    }

    /// The feature comes with the first attribute.
    fn require_ext_attr(&self, handle: &mut Handle<'_>) -> Result<()> {
        if self.superblock.lock().features().has_compat(compat::EXT_ATTR) {
            return Ok(());
        }
        self.change_superblock(handle, |superblock| superblock.feature_compat |= compat::EXT_ATTR)
    }

    fn check_xattr_change<'n>(&self, inode: &Inode, name: &'n [u8]) -> Result<Name<'n>> {
        let name = Name::parse(name)?;
        let frozen = inode.has_flag(flags::IMMUTABLE | flags::APPEND);
        if frozen || name.index == USER && !takes_user_names(inode) {
            return Err(Error::errno_only(errno::EPERM));
        }
        Ok(name)
    }

    /// Where a name is. EOPNOTSUPP if its value has an inode of its own, which a change would have to free.
    fn places(&self, inode: &Inode, name: Name<'_>) -> Result<Places> {
        let (mut places, mut has_inode) = (Places::default(), false);
        self.each_list(inode, &mut |list, bias| {
            if let Some(entry) = name.find(list)? {
                has_inode |= entry.value_inum != 0;
                match bias {
                    0 => places.in_inode = true,
                    _ => places.in_block = true,
                }
            }
            Ok(())
        })?;
        if has_inode { Err(in_ea_inode()) } else { Ok(places) }
    }

    /// Calls `look` with the inode's own list, then with its block's, and what their value offsets count from.
    fn each_list(
        &self,
        inode: &Inode,
        look: &mut dyn FnMut(&[u8], usize) -> ext4_format::Result<()>,
    ) -> Result<()> {
        let (block, own) = {
            let state = inode.state.lock();
            let own = xattr::list_of_inode(state.disk.xattr_area()).map(<[u8]>::to_vec);
            (Pblk(state.disk.file_acl), own)
        };
        if let Some(list) = own {
            look(&list, 0).map_err(|corrupt| Error::corrupt_inode(inode.ino.0, corrupt))?;
        }
        if block.0 != 0 {
            let image = self.read_xattr_block(block)?;
            look(&image[XattrHeader::SIZE..], XattrHeader::SIZE)
                .map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
        }
        Ok(())
    }
}

/// The inode's list with a value set; `None` if it does not fit. An inode without a fixed part past 0x80 gets it.
fn list_with(disk: &mut DiskInode, name: Name<'_>, value: &[u8]) -> ext4_format::Result<Option<Vec<u8>>> {
    disk.want_extra_isize();
    let area = disk.xattr_area();
    // Magic and terminator.
    if area.len() < 8 {
        return Ok(None);
    }
    match xattr::list_of_inode(area) {
        Some(list) => xattr::with(list, name.index, name.suffix, value),
        None => xattr::with(&vec![0; area.len() - 4], name.index, name.suffix, value),
    }
}

fn does_not_fit() -> Error {
    Error::refused(errno::ENOSPC, "the attribute does not fit the inode")
}

fn in_ea_inode() -> Error {
    Error::refused(errno::EOPNOTSUPP, "the attribute is in an inode of its own")
}
