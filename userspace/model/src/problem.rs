use std::fmt;

use serde::Serialize;

use crate::Origin;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Severity {
    /// Something works differently from what the author may expect.
    Warning,
    /// Something the author asked for does not work.
    Error,
}

/// Something wrong with one object: data, never an `Err`, so that it takes nothing else down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    pub origin: Origin,
    /// Path of the field inside the object, `spec.rules[0].backendRefs[1].port`; empty for the object as a whole.
    pub field: String,
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    /// `HTTPRoute default/shop: spec.rules[0]: what is wrong; fix: what to do`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.fix.is_empty() {
            write!(f, "; fix: {}", self.fix)?;
        }
        Ok(())
    }
}
