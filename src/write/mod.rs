//! Makes the records that leave: results, dead letters, review items, tokens.
