//! Repeatable chance: a number from the seed, what is asked, and who asks. Never a generator with a state.

/// What a request is, as far as chance goes.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    hasher: blake3::Hasher,
}

impl Draws {
    /// `slot`: the slot header, or what stands for it; `occurrence`: which request of that slot, from 1.
    pub(super) fn new(seed: u64, model: &str, slot: &str, occurrence: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for part in [model, slot] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&occurrence.to_le_bytes());
        Draws { hasher }
    }

    /// From 0 to below 1; `what` keeps one question's chance apart from another's.
    pub(super) fn share(&self, what: &str) -> f64 {
        // 53 bits fill a float exactly.
        (self.number(what) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn number(&self, what: &str) -> u64 {
        let mut hasher = self.hasher.clone();
        hasher.update(what.as_bytes());
        first_eight(&hasher.finalize())
    }
}

/// A number that stands for a text.
pub(super) fn print(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    first_eight(&hasher.finalize())
}

fn first_eight(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_draws_the_same_and_another_one_does_not() {
        let draw = |seed, slot, n| Draws::new(seed, "main", slot, n).share("fault");
        assert_eq!(draw(1, "a", 1), draw(1, "a", 1));
        let others = [draw(1, "a", 1), draw(2, "a", 1), draw(1, "b", 1), draw(1, "a", 2)];
        for (i, one) in others.iter().enumerate() {
            assert!((0.0..1.0).contains(one));
            assert!(others[i + 1..].iter().all(|other| other != one));
        }
    }
}
