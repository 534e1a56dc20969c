//! Stand-ins for what other stages compile, until their own types are merged; same names, same shapes.

use std::sync::Arc;
use std::time::Duration;

pub struct Expression;
pub struct Schema;
pub struct Prompt;
pub struct Rule {
    pub that: Expression,
    pub message: String,
    pub critical: bool,
}
pub struct Model {
    pub name: Arc<str>,
}
pub enum Start {
    All,
    Sample { share: f64 },
    Line,
}
pub struct ReviewRules {
    pub line: f64,
    pub start: Start,
    pub critical: Vec<String>,
    pub team: Option<String>,
    pub due: Option<Duration>,
}
