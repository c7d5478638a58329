//! N-API bindings: arguments in, results out, completions.
//!
//! The functions are raw Node-API callbacks, registered by hand: they cost a fraction of generated ones, and they check
//! their arguments, which generated ones do not (-1 would become 4294967295). What they are is declared in
//! `boundary.d.ts`; what they mean is said in `src/native/boundary.ts`.

mod arrivals;
mod call;
mod container;
mod detail;
mod environment;
mod files;
mod js;
mod memory;
mod names;
mod options;
pub mod register;
mod state;
mod table;
mod transfer;
mod uv;
mod volumes;
