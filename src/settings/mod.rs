//! What the operator asked for: read, checked, and made ready to use.
