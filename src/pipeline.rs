//! Takes one record through every stage. Read this first.
