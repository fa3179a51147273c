//! The tokens in the places of a KV cache, and which of them each token attends to.
//!
//! A text may have several continuations, called **branches**. Their tokens lie in one KV cache, in the order in which they were computed.
//! A token attends to the shared text, called the **trunk**, and to its own branch. So several questions share one copy of the context.

/// Attention bias that masks a place. It is below every score, and finite in fp32 and bf16.
const MASKED: f32 = -1e30;

/// The trunk or one of its continuations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Branch(u32);

impl Branch {
    /// The text that all branches continue.
    pub const TRUNK: Self = Self(0);
    /// Marks the place of a removed token, which no token attends to.
    const NONE: Self = Self(u32::MAX);

    /// The branch with this number.
    pub fn new(number: usize) -> Self {
        Self(u32::try_from(number + 1).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }
}

/// The branch and position of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The branch that the token belongs to.
    pub branch: Branch,
    /// Number of tokens before it in its text: those of the trunk and of its branch.
    pub position: usize,
}

impl Slot {
    /// Slots of `count` consecutive tokens, the first of which is at `position`.
    pub fn consecutive(branch: Branch, position: usize, count: usize) -> impl Iterator<Item = Self> {
        (position..position + count).map(move |position| Self { branch, position })
    }

    /// Whether the token attends to another one that is not after it.
    fn attends_to(self, other: Self, window: usize) -> bool {
        let own = other.branch == Branch::TRUNK || other.branch == self.branch;
        own && self.position.saturating_sub(other.position) < window
    }
}

/// The attention bias of the last `count` slots, `[count, slots]`: 0 for places that a token attends to, [`MASKED`] for others. A sliding
/// window of `window` tokens includes the token itself. Places after a token are not masked, because the graph masks them.
pub fn attention_bias(slots: &[Slot], count: usize, window: Option<usize>) -> Vec<f32> {
    let window = window.unwrap_or(usize::MAX);
    let queries = &slots[slots.len() - count..];
    let mut bias = Vec::with_capacity(count * slots.len());
    for &query in queries {
        bias.extend(slots.iter().map(|&slot| if query.attends_to(slot, window) { 0.0 } else { MASKED }));
    }
    bias
}

/// The first place that any of the last `count` tokens attends to in a sliding layer.
pub fn first_attended(slots: &[Slot], count: usize, window: usize) -> usize {
    let queries = &slots[slots.len() - count..];
    slots.iter().position(|&slot| queries.iter().any(|query| query.attends_to(slot, window))).unwrap_or(0)
}

/// The slots of a KV cache, place by place.
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

    /// Removes the tokens of a branch from a position on. Their places stay as gaps, except at the end.
    pub fn remove(&mut self, branch: Branch, position: usize) {
        for slot in self.0.iter_mut().filter(|slot| slot.branch == branch && slot.position >= position) {
            slot.branch = Branch::NONE;
        }
        while self.0.last().is_some_and(|slot| slot.branch == Branch::NONE) {
            self.0.pop();
        }
    }

    /// Closes the gaps. Returns the places that are kept, or `None` if there are no gaps.
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

    /// A row of characters for each of the last tokens, with an `x` for each place that it attends to.
    fn attended(slots: &[Slot], count: usize, window: Option<usize>) -> Vec<String> {
        let bias = attention_bias(slots, count, window);
        let row = |row: &[f32]| row.iter().map(|&v| if v == 0.0 { 'x' } else { '.' }).collect();
        bias.chunks_exact(slots.len()).map(row).collect()
    }

    #[test]
    fn branches_attend_to_the_trunk_and_to_themselves() {
        let [a, b] = [Branch::new(0), Branch::new(1)];
        let mut slots = Slots::default();
        slots.extend(&Slot::consecutive(Branch::TRUNK, 0, 3).collect::<Vec<_>>());
        slots.extend(&Slot::consecutive(a, 3, 2).chain(Slot::consecutive(b, 3, 1)).collect::<Vec<_>>());
        assert_eq!(attended(slots.as_slice(), 3, None), ["xxxxx.", "xxxxx.", "xxx..x"]);
        // The window counts positions, not places: tokens of the other branch do not push the trunk out of it.
        assert_eq!(attended(slots.as_slice(), 3, Some(2)), ["..xxx.", "...xx.", "..x..x"]);
        assert_eq!(
            [first_attended(slots.as_slice(), 3, 2), first_attended(slots.as_slice(), 1, 1), first_attended(slots.as_slice(), 3, 9)],
            [2, 5, 0]
        );
    }

    #[test]
    fn removed_tokens_leave_gaps_until_these_are_closed() {
        let [a, b] = [Branch::new(0), Branch::new(1)];
        let mut slots = Slots::default();
        slots.extend(&[Slot::consecutive(a, 0, 3), Slot::consecutive(b, 0, 2)].into_iter().flatten().collect::<Vec<_>>());
        slots.remove(a, 1);
        assert_eq!(slots.as_slice().len(), 5);
        assert_eq!(attended(slots.as_slice(), 1, None), ["...xx"]);
        assert_eq!(slots.compact(), Some(vec![0, 3, 4]));
        assert_eq!(slots.compact(), None);
        slots.remove(b, 0);
        assert_eq!(slots.as_slice(), [Slot { branch: a, position: 0 }]);
    }
}
