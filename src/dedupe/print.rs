//! Fingerprints of payloads, under any rule.
