//! F67–F71: the index of a directory.
