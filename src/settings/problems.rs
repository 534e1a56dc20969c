//! What is wrong with a configuration: all of it at once, each with its place and a hint.

use std::fmt;

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong, lower-case, no period.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Everything that is wrong with one file; never empty. Its `Display` is what people read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems {
    pub all: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.all {
            writeln!(f, "error: {}", problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
