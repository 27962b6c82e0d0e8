//! Chance that can be played again.

/// xorshift64: a failed run is played again with its seed.
pub(crate) struct Dice {
    state: u64,
    pub(crate) seed: u64,
}

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed | 1, seed }
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % sides
    }

    pub(crate) fn index(&mut self, sides: u64) -> usize {
        usize::try_from(self.roll(sides)).expect("small")
    }
}
