//! The one error of this crate, and the errno it becomes.

use ext4_format::Corrupt;

/// The result of a file system operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] block_io::Error),
    /// The volume is damaged; where says which inode or block.
    #[error("{place}: {corrupt}")]
    Corrupt {
        /// `inode 12`, `block 345`, …
        place: String,
        /// What is wrong.
        corrupt: Corrupt,
    },
    /// A refusal with an errno of its own: ENOENT, ENOSPC, EEXIST, …
    #[error("{}{}", std::io::Error::from_raw_os_error(*errno), detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// A positive errno.
        errno: i32,
        /// What the errno alone does not say.
        detail: Option<String>,
    },
    /// The operation would have had to wait, and was told not to.
    #[error("would block")]
    WouldBlock,
}

impl Error {
    /// A plain errno.
    pub fn errno_only(errno: i32) -> Self {
        Self::Refused { errno, detail: None }
    }

    /// An errno with an explanation.
    pub fn refused(errno: i32, detail: impl Into<String>) -> Self {
        Self::Refused { errno, detail: Some(detail.into()) }
    }

    /// Damage found in a block.
    pub fn corrupt_block(block: u64, corrupt: Corrupt) -> Self {
        Self::Corrupt { place: format!("block {block}"), corrupt }
    }

    /// Damage found in an inode or what it maps.
    pub fn corrupt_inode(ino: u32, corrupt: Corrupt) -> Self {
        Self::Corrupt { place: format!("inode {ino}"), corrupt }
    }

    /// The positive errno for a caller.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Device(error) => error.errno,
            Self::Corrupt { corrupt, .. } => corrupt.errno(),
            Self::Refused { errno, .. } => *errno,
            Self::WouldBlock => errno::EAGAIN,
        }
    }
}

/// The errnos that this crate decides on by itself (Linux numbers).
#[expect(missing_docs, reason = "the names are POSIX's")]
pub mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EIO: i32 = 5;
    pub const ENXIO: i32 = 6;
    pub const E2BIG: i32 = 7;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const ENOTBLK: i32 = 15;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EXDEV: i32 = 18;
    pub const ENODEV: i32 = 19;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const ESPIPE: i32 = 29;
    pub const EROFS: i32 = 30;
    pub const EMLINK: i32 = 31;
    pub const ERANGE: i32 = 34;
    pub const ENAMETOOLONG: i32 = 36;
    pub const ENOTEMPTY: i32 = 39;
    pub const ELOOP: i32 = 40;
    pub const ENODATA: i32 = 61;
    pub const EBADMSG: i32 = 74;
    pub const EOPNOTSUPP: i32 = 95;
    pub const EUCLEAN: i32 = 117;
    pub const ECANCELED: i32 = 125;
}

impl From<jbd2::Error> for Error {
    fn from(error: jbd2::Error) -> Self {
        match error {
            jbd2::Error::Device(error) => Self::Device(error),
            other => Self::Refused { errno: other.errno(), detail: Some(other.to_string()) },
        }
    }
}
