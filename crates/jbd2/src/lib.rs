//! The journal: handles, transactions, commit, checkpoint, revoke and recovery.
