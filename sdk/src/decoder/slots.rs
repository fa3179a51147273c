//! What stands in the places of a cache, and which tokens see which of them.
//!
//! A text may be continued in several ways at once: **branches** lie in the cache one after the other, or mixed, and each sees
//! the text that all share, the trunk, and itself. So several questions are answered over one context that is there once.

/// Score of what is not seen: smaller than any, and finite in fp32 and bf16.
const UNSEEN: f32 = -1e30;

/// A continuation of the trunk; or the trunk itself, which all see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Branch(u32);

impl Branch {
    /// What all branches continue.
    pub const TRUNK: Self = Self(0);
    /// A token that nobody sees any more.
    const NONE: Self = Self(u32::MAX);

    /// The branch of this number.
    pub fn new(number: usize) -> Self {
        Self(u32::try_from(number + 1).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }
}

/// A token's place in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which continuation it belongs to.
    pub branch: Branch,
    /// How many tokens stand before it, those of the trunk included.
    pub position: usize,
}

impl Slot {
    /// Slots of `count` tokens from a position on.
    pub fn run(branch: Branch, position: usize, count: usize) -> impl Iterator<Item = Self> {
        (position..position + count).map(move |position| Self { branch, position })
    }

    fn sees(self, other: Self, window: usize) -> bool {
        let own = other.branch == Branch::TRUNK || other.branch == self.branch;
        own && self.position.saturating_sub(other.position) < window
    }
}

/// What the last `count` of these slots see, `[count, slots]`: 0, or very little. Layers with a window see that many tokens back,
/// themselves included. What comes later is not left out: the graph does that.
pub fn attention_bias(slots: &[Slot], count: usize, window: Option<usize>) -> Vec<f32> {
    let window = window.unwrap_or(usize::MAX);
    let queries = &slots[slots.len() - count..];
    let mut bias = Vec::with_capacity(count * slots.len());
    for &query in queries {
        bias.extend(slots.iter().map(|&slot| if query.sees(slot, window) { 0.0 } else { UNSEEN }));
    }
    bias
}

/// The first of these slots that any of the last `count` sees in a layer with a window.
pub fn first_seen(slots: &[Slot], count: usize, window: usize) -> usize {
    let queries = &slots[slots.len() - count..];
    slots.iter().position(|&slot| queries.iter().any(|query| query.sees(slot, window))).unwrap_or(0)
}

/// The slots of a cache, in its order.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    pub fn as_slice(&self) -> &[Slot] {
        &self.0
    }

    pub fn extend(&mut self, slots: &[Slot]) {
        self.0.extend_from_slice(slots);
    }

    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Forgets a branch's tokens from a position on. They keep their places unless they are the last.
    pub fn forget(&mut self, branch: Branch, position: usize) {
        for slot in self.0.iter_mut().filter(|slot| slot.branch == branch && slot.position >= position) {
            slot.branch = Branch::NONE;
        }
        while self.0.last().is_some_and(|slot| slot.branch == Branch::NONE) {
            self.0.pop();
        }
    }

    /// Closes the gaps; tells which places are kept, where any are not.
    pub fn compact(&mut self) -> Option<Vec<usize>> {
        let kept: Vec<usize> = (0..self.0.len()).filter(|&place| self.0[place].branch != Branch::NONE).collect();
        if kept.len() == self.0.len() {
            return None;
        }
        self.0.retain(|slot| slot.branch != Branch::NONE);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(slots: &[Slot], count: usize, window: Option<usize>) -> Vec<String> {
        let bias = attention_bias(slots, count, window);
        let row = |row: &[f32]| row.iter().map(|&v| if v == 0.0 { 'x' } else { '.' }).collect();
        bias.chunks_exact(slots.len()).map(row).collect()
    }

    #[test]
    fn branches_see_the_trunk_and_themselves() {
        let [a, b] = [Branch::new(0), Branch::new(1)];
        let mut slots = Slots::default();
        slots.extend(&Slot::run(Branch::TRUNK, 0, 3).collect::<Vec<_>>());
        slots.extend(&Slot::run(a, 3, 2).chain(Slot::run(b, 3, 1)).collect::<Vec<_>>());
        assert_eq!(seen(slots.as_slice(), 3, None), ["xxxxx.", "xxxxx.", "xxx..x"]);
        // Positions count, not places: the other branch's tokens do not push the trunk out of the window.
        assert_eq!(seen(slots.as_slice(), 3, Some(2)), ["..xxx.", "...xx.", "..x..x"]);
        assert_eq!([first_seen(slots.as_slice(), 3, 2), first_seen(slots.as_slice(), 1, 1), first_seen(slots.as_slice(), 3, 9)], [2, 5, 0]);
    }

    #[test]
    fn what_is_forgotten_leaves_a_gap_until_it_is_closed() {
        let [a, b] = [Branch::new(0), Branch::new(1)];
        let mut slots = Slots::default();
        slots.extend(&[Slot::run(a, 0, 3), Slot::run(b, 0, 2)].into_iter().flatten().collect::<Vec<_>>());
        slots.forget(a, 1);
        assert_eq!(slots.as_slice().len(), 5);
        assert_eq!(seen(slots.as_slice(), 1, None), ["...xx"]);
        assert_eq!(slots.compact(), Some(vec![0, 3, 4]));
        assert_eq!(slots.compact(), None);
        slots.forget(b, 0);
        assert_eq!(slots.as_slice(), [Slot { branch: a, position: 0 }]);
    }
}
