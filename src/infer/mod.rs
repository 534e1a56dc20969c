//! Asks models: picks one of the line-up, makes one try, classifies what happened, decides what next.
