//! N-API bindings: arguments in, results out, completions.
