//! Vertical positions of the labels in a margin: in the order of their boxes and as near to them as possible.

/// The height of a label and its preferred position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    /// Preferred position of the label's middle.
    pub middle: f32,
    pub height: f32,
}

/// Returns the top of each label, in the given order, between `top` and `bottom` and `gap` apart. `wishes` are sorted by `middle` and
/// must fit (see [`fitting`]).
///
/// Labels that would overlap form a block, which is placed where the sum of squared distances to its labels' wishes is smallest.
pub(super) fn spread(wishes: &[Wish], top: f32, bottom: f32, gap: f32) -> Vec<f32> {
    struct Block {
        /// Number of labels.
        count: usize,
        /// Sum of the labels' heights and gaps.
        height: f32,
        /// Sum over the labels of the block's top that each would prefer.
        tops: f32,
    }
    impl Block {
        fn top(&self) -> f32 {
            self.tops / self.count as f32
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for wish in wishes {
        let mut block = Block { count: 1, height: wish.height + gap, tops: wish.middle - wish.height / 2.0 };
        while let Some(last) = blocks.pop_if(|last| last.top() + last.height > block.top()) {
            block = Block {
                count: last.count + block.count,
                height: last.height + block.height,
                tops: last.tops + block.tops - last.height * block.count as f32,
            };
        }
        blocks.push(block);
    }
    let mut tops = Vec::with_capacity(wishes.len());
    let mut wishes_left = wishes.iter();
    for block in &blocks {
        let mut y = block.top();
        for wish in wishes_left.by_ref().take(block.count) {
            tops.push(y);
            y += wish.height + gap;
        }
    }
    // Labels beyond the margin's top are moved down, then labels beyond its bottom are moved up.
    let mut free = top;
    for (y, wish) in tops.iter_mut().zip(wishes) {
        *y = y.max(free);
        free = *y + wish.height + gap;
    }
    let mut free = bottom;
    for (y, wish) in tops.iter_mut().zip(wishes).rev() {
        *y = y.min(free - wish.height);
        free = *y - gap;
    }
    tops
}

/// Number of labels, counted from the first, that fit into `room` with `gap` between them.
pub(super) fn fitting(heights: impl IntoIterator<Item = f32>, room: f32, gap: f32) -> usize {
    let mut used = -gap;
    heights
        .into_iter()
        .take_while(|height| {
            used += height + gap;
            used <= room
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_stay_in_order_and_apart(mut middles in prop::collection::vec(-50f32..250.0, 0..12), height in 4f32..14.0) {
            middles.sort_by(f32::total_cmp);
            let wishes: Vec<Wish> = middles.iter().map(|&middle| Wish { middle, height }).collect();
            let count = fitting(wishes.iter().map(|w| w.height), 200.0, 2.0);
            let wishes = &wishes[..count];
            let tops = spread(wishes, 0.0, 200.0, 2.0);
            prop_assert_eq!(tops.len(), wishes.len());
            for pair in tops.windows(2) {
                prop_assert!(pair[1] - pair[0] >= height + 2.0 - 0.01);
            }
            for y in tops {
                prop_assert!(y >= -0.01 && y + height <= 200.01);
            }
        }
    }

    #[test]
    fn labels_with_room_are_at_their_preferred_positions() {
        let wishes = [10.0, 50.0, 54.0].map(|middle| Wish { middle, height: 10.0 });
        assert_eq!(spread(&wishes, 0.0, 100.0, 2.0), [5.0, 41.0, 53.0]);
        assert_eq!(fitting([10.0, 10.0, 10.0], 22.0, 2.0), 2);
    }
}
