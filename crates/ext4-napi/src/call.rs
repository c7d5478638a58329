//! What the exported functions are called with.

use std::ptr;

use crate::environment::Environment;
use crate::js::{Arguments, Js, Value};

/// What a function is called with.
pub struct Call<'a, const N: usize> {
    /// The environment's values.
    pub js: Js,
    /// The environment's native side.
    pub environment: &'a Environment,
    /// The arguments.
    pub arguments: Arguments<N>,
}

/// No result: undefined.
pub const UNDEFINED: Value = ptr::null_mut();
