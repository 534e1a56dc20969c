//! What the ledger learns after a commit; may be late, may never come.
