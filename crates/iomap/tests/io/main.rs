//! Plans, direct and buffered I/O against tables and models.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod direct;
mod pages;
mod plans;
