//! Turns what a model said into a value that satisfies its schema, or into findings.
