//! Expressions over tasks and answers: the only file that knows CEL.
