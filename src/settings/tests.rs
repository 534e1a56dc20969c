//! Mistakes and what is said of them, word for word; and what a good file means.
