//! What can be wrong with bytes read from a disk.

/// The result of decoding.
pub type Result<T> = std::result::Result<T, Corrupt>;

/// The disk's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// A stored checksum differs from the computed one (EBADMSG).
    #[error("{what}: bad checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// As stored.
        found: u32,
        /// As computed.
        expected: u32,
    },
    /// A field that no valid volume has (EUCLEAN).
    #[error("{what}: {detail}")]
    Structure {
        /// The structure.
        what: &'static str,
        /// The rule that is broken, with the value found.
        detail: String,
    },
}

impl Corrupt {
    /// A broken structural rule.
    pub fn structure(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Structure { what, detail: detail.into() }
    }

    /// The errno that a caller gets: EBADMSG for checksums, EUCLEAN for structure (D4).
    pub fn errno(&self) -> i32 {
        match self {
            Self::Checksum { .. } => 74,
            Self::Structure { .. } => 117,
        }
    }
}
