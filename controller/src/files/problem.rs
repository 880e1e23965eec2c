//! What is wrong in a file, and where.

use std::fmt;
use std::path::PathBuf;

use pierhead_model::Origin;
use serde::Serialize;

/// Something in a file that is not in force, and how to put that right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FileProblem {
    /// Relative to the folder.
    pub file: PathBuf,
    /// From 1; 0 for the file as a whole.
    pub line: u32,
    /// The object, as far as it can be told.
    pub origin: Option<Origin>,
    /// `spec.rules[0].matches`; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it. Empty where the message says it already.
    pub fix: String,
    /// An earlier, good state of this is still in force.
    pub last_good_kept: bool,
}

impl fmt::Display for FileProblem {
    /// `web.yaml:7: HTTPRoute default/web: spec.rules[0].x: what is wrong; fix: what to do`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(origin) = &self.origin {
            write!(f, ": {origin}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.fix.is_empty() {
            write!(f, "; fix: {}", self.fix)?;
        }
        if self.last_good_kept {
            f.write_str(" (its last good state stays in force)")?;
        }
        Ok(())
    }
}
