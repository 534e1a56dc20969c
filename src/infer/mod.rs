//! Asks models: picks one of the line-up, makes one try, classifies what happened, decides what next.
//!
//! | file | decides or does |
//! |---|---|
//! | `model`, `provider` | what a model is; what is known of providers without being told |
//! | `prompt` | renders a question; a payload is data in it, never instructions |
//! | `failure` | what kind of failure it was, and what that means for retry, breaker and fallback |
//! | `retry`, `allowance`, `breaker` | pure policy: waits, budgets, when a model may be called |
//! | `openai`, `anthropic`, `sse` | the two dialects and their streams |
//! | `attempt` | one request to one model, under its timeouts |
//! | `call` | one slot: permit, journal, try, classify, decide, store |
//! | `models` | the running side: one breaker and one client per model |
//!
//! An answer counts only with a terminal finish signal. Nothing here reads an answer's content.

mod allowance;
mod answer;
mod anthropic;
mod attempt;
mod breaker;
mod call;
mod failure;
mod model;
mod models;
mod openai;
mod prompt;
pub mod provider;
mod retry;
mod sse;

pub use allowance::Allowance;
pub use answer::{Answer, TryNote, Usage};
pub use call::{Call, Called};
pub use failure::Class;
pub use model::{Api, Model, Price, Timeouts};
pub use models::{Availability, Change, ModelView, Models, SetUpError};
pub use prompt::{Prompt, PromptError, Request, Turn};
