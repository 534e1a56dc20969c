//! A model server for tests and load: answers by rules, faults by scenario.
