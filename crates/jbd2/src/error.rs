//! The one error of this crate, and the errno it becomes.

/// The result of a journal operation.
pub type Result<T> = std::result::Result<T, Error>;

const EIO: i32 = 5;
const EBUSY: i32 = 16;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EINVAL: i32 = 22;
const EBADMSG: i32 = 74;
/// What the journal aborts with when it is shut down (T28).
pub(crate) const ESHUTDOWN: i32 = 108;
const EUCLEAN: i32 = 117;

/// Why a journal operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] block_io::Error),
    /// The journal aborted before; no change is accepted any more (T29).
    #[error("the journal has aborted (errno {errno})")]
    Aborted {
        /// The positive errno of the abort.
        errno: i32,
    },
    /// What was waited for or stopped did not become durable, for the journal aborted (T29).
    #[error("the transaction was lost: the journal aborted (errno {errno})")]
    Lost {
        /// The positive errno of the abort.
        errno: i32,
    },
    /// The journal is frozen: no change before the thaw (T26).
    #[error("the volume is frozen")]
    Frozen,
    /// A handle of more credits than a transaction may have (T3).
    #[error("{credits} credits asked for, {maximum} are possible")]
    TooManyCredits {
        /// Asked for.
        credits: u32,
        /// Possible.
        maximum: u32,
    },
    /// A handle dirtied more blocks than it has credits: our host's bug (T7).
    #[error("no credit left for block {block}")]
    CreditsExceeded {
        /// The block that was one too many.
        block: u64,
    },
    /// The log is too small for a transaction (T30).
    #[error("no space in the log")]
    LogFull,
    /// The journal cannot be used as it is: wrong geometry, unknown features (J7).
    #[error("unusable journal: {0}")]
    Invalid(String),
    /// A checksum is wrong (J7, R5).
    #[error("journal checksum: {0}")]
    Checksum(String),
    /// The journal is damaged (R4, R5, R10).
    #[error("damaged journal: {0}")]
    Corrupt(String),
}

impl Error {
    /// The positive errno for a caller.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Device(error) => error.errno,
            Self::Aborted { errno: ESHUTDOWN } => EIO,
            Self::Aborted { .. } => EROFS,
            Self::Frozen => EBUSY,
            Self::Lost { .. } | Self::CreditsExceeded { .. } | Self::LogFull => EIO,
            Self::TooManyCredits { .. } => ENOSPC,
            Self::Invalid(_) => EINVAL,
            Self::Checksum(_) => EBADMSG,
            Self::Corrupt(_) => EUCLEAN,
        }
    }
}
