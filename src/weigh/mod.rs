//! Decides how sure we are of an answer, and whether a person must look.
