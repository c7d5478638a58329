//! The tree over a map in memory, judged by a validator that shares nothing with it.

mod cases;
mod damage;
mod model;
mod store;
mod tools;
mod validate;
