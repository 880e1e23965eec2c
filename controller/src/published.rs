//! What a source of configuration publishes, whatever it reads.

use std::time::Duration;

use pierhead_translate::Translation;

use crate::files::{FileProblem, Ignored};

/// One configuration, as it was made of a folder or of what an API server holds.
#[derive(Clone, Debug)]
pub struct Published {
    pub translation: Translation,
    /// What is wrong with files themselves; none from an API server. What is wrong with the meaning is in the translation.
    pub file_problems: Vec<FileProblem>,
    pub ignored: Vec<Ignored>,
    /// Objects in force.
    pub objects: usize,
    /// Counts from 1.
    pub version: u64,
    /// Time from the end of the burst of changes to here.
    pub took: Duration,
}
