//! Tests of the KV cache.

use super::super::budget::Budget;
use super::*;
use crate::runtime::{Options, Provider, Runtime};
use proptest::prelude::*;

const WINDOW: usize = 4;

/// Two layers, of which the first is a sliding layer.
fn layout() -> Layout {
    let sizes = DecoderSizes {
        layers: 2,
        kv_heads: 2,
        head_dim: 2,
        hidden: 1,
        vocabulary: 1,
        sliding_window: Some(WINDOW),
        max_context: 10_000,
        precision: "fp32".into(),
    };
    Layout::new(&sizes, [true, false].into(), None)
}

fn empty(layout: &Layout, budget: &Arc<Budget>, capacity: usize, context: usize) -> Cache {
    Runtime::load(Options { provider: Provider::Cpu, ..Options::default() }).unwrap();
    let reserved = budget.reserve(layout.bytes(capacity, context)).unwrap();
    Cache::new(&Allocator::default(), layout, capacity, context, reserved).unwrap()
}

/// A cache for 1,024 tokens that holds a context of 1,000 tokens. Each place has values of its own.
fn filled() -> Cache {
    filled_from(&Budget::new(None))
}

fn filled_from(budget: &Arc<Budget>) -> Cache {
    let layout = layout();
    let mut cache = empty(&layout, budget, 1024, 1000);
    let rows: Vec<f32> = (0..2).flat_map(|head| (0..2000).map(move |i| (head * 10_000 + i) as f32)).collect();
    cache.fill(1000, |_| Ok(rows.clone())).unwrap();
    cache
}

fn firsts(cache: &Cache, index: usize, places: Range<usize>) -> Vec<f32> {
    cache.rows(index, places).unwrap().chunks_exact(2).map(|row| row[0]).collect()
}

#[test]
fn sliding_layers_have_room_for_what_tokens_attend_to() {
    let layout = layout();
    assert_eq!(layout.places(true, 1024, 1000), WINDOW + MAX_RUN);
    assert_eq!(layout.places(true, 4000, 1000), 4000 - 997, "all that follows the context");
    assert_eq!((layout.places(true, 100, 90), layout.places(false, 100, 90)), (100, 100));
    // Two heads of 1,024 places, and two of 132 places with 128 spare places after them.
    assert_eq!(layout.bytes(1024, 1000), (2 * 1024 + 2 * 132 + 128) * 2 * 2 * 4);
    let full = Layout { sliding: [false, false].into(), ..layout };
    assert_eq!(full.bytes(1024, 1000), 2 * 1024 * 2 * 2 * 2 * 4);
}

#[test]
fn needed_keys_and_values_are_kept() {
    let cache = filled();
    // A token after the context attends to itself and the three tokens before it.
    assert_eq!((cache.sliding.from, cache.full.from), (997, 0));
    assert_eq!(firsts(&cache, 0, 997..1000), [1994.0, 1996.0, 1998.0, 11994.0, 11996.0, 11998.0]);
    assert_eq!(firsts(&cache, 3, 0..1000)[..2], [0.0, 2.0]);
    let read = |cache: &Cache| (0..4).map(|index| cache.rows(index, cache.needed(index, 1000)).unwrap()).collect::<Vec<_>>();
    let saved = read(&cache);
    assert_eq!(saved.iter().map(|rows| rows.len() / 4).collect::<Vec<_>>(), [3, 3, 1000, 1000]);
    let mut again = filled();
    again.fill(1000, |index| Ok(saved[index].clone())).unwrap();
    assert_eq!((read(&again), again.length()), (saved, 1000));
}

#[test]
fn a_cache_slides_grows_and_is_rewound() {
    let budget = Budget::new(None);
    let mut cache = filled_from(&budget);
    let append = |cache: &mut Cache, count| {
        let from = cache.length();
        cache.advance(&Slot::consecutive(Branch::TRUNK, from, count).collect::<Vec<_>>());
        cache.slide(count, from.saturating_sub(3)).unwrap();
    };
    append(&mut cache, 20);
    cache.rewind(1000);
    assert_eq!((cache.length(), cache.sliding.from), (1000, 997));
    let reserved = budget.reserve(cache.bytes_to_grow(2048)).unwrap();
    cache.grow(2048, reserved).unwrap();
    assert_eq!((cache.capacity(), cache.sliding.capacity), (2048, 2048 - 997));
    assert_eq!(firsts(&cache, 1, 998..1000), [1996.0, 1998.0, 11996.0, 11998.0]);
    // However long the conversation, the cache can be rewound to the end of the context.
    for _ in 0..4 {
        append(&mut cache, 250);
    }
    assert_eq!(cache.sliding.from, 997);
    cache.rewind(1000);
    assert_eq!(firsts(&cache, 0, 998..1000), [1996.0, 1998.0, 11996.0, 11998.0]);
    // A rewind into the context removes all of it. It is then computed again, run by run.
    let mut cache = filled();
    cache.rewind(500);
    assert_eq!((cache.length(), cache.sliding.from), (0, 0));
    [3, MAX_RUN, MAX_RUN, MAX_RUN].into_iter().for_each(|count| append(&mut cache, count));
    assert_eq!((cache.length(), cache.sliding.from), (3 * MAX_RUN + 3, 2 * MAX_RUN));
}

#[test]
fn gaps_are_closed_in_all_layers() {
    let mut cache = filled();
    let [one, two] = [Branch::new(0), Branch::new(1)];
    cache.advance(&[Slot::consecutive(one, 1000, 2), Slot::consecutive(two, 1000, 1)].into_iter().flatten().collect::<Vec<_>>());
    cache.slide(3, 997).unwrap();
    for index in 0..4 {
        let part = cache.part(index);
        let values = cache.tensors[index].tensor.try_extract_tensor_mut::<f32>().unwrap().1;
        for place in 1000..1003 {
            values[(place - part.from) * 2] = place as f32;
        }
    }
    cache.remove(one, 1000);
    cache.compact().unwrap();
    assert_eq!(cache.length(), 1001);
    for index in 0..4 {
        assert_eq!(firsts(&cache, index, 999..1001)[..2], [1998.0, 1002.0]);
    }
}

/// Bytes of the tensors of a cache, from the memory that they hold.
fn allocated(cache: &Cache) -> u64 {
    let bytes = |keys: &LayerTensor| match keys.tensor.try_extract_tensor::<f32>() {
        Ok((_, values)) => size_of_val(values) as u64,
        Err(_) => size_of_val(keys.tensor.try_extract_tensor::<bf16>().unwrap().1) as u64,
    };
    let bytes = cache.tensors.iter().map(bytes).sum();
    assert_eq!(cache.allocated(), bytes);
    bytes
}

/// Layouts with different windows, sizes and types.
fn layouts() -> impl Iterator<Item = Layout> {
    let windows = [None, Some(1), Some(4), Some(129), Some(512), Some(5000)];
    windows.into_iter().flat_map(|window| {
        [(1, "fp32", 10_000), (3, "bf16", 2048), (2, "fp32", 2049)].map(|(kv_heads, precision, max_context)| {
            let sizes = layout().sizes;
            let sizes = DecoderSizes { kv_heads, sliding_window: window, max_context, precision: precision.into(), layers: 3, ..sizes };
            // Most layers of published models are sliding layers.
            Layout::new(&sizes, [true, true, false].map(|slides| slides && window.is_some()).into(), None)
        })
    })
}

#[test]
fn what_is_reserved_is_what_is_allocated() {
    for layout in layouts() {
        let budget = Budget::new(None);
        for tokens in [1, 127, 128, 129, 1000, 2047, 2048] {
            for context in [0, 1, tokens / 2, tokens] {
                let capacity = layout.capacity(tokens);
                let mut cache = empty(&layout, &budget, capacity, context);
                assert_eq!(
                    (allocated(&cache), layout.bytes(capacity, context)),
                    (budget.used(), budget.used()),
                    "{layout:?} {tokens} {context}"
                );
                let larger = layout.capacity(capacity + 300);
                let reserved = budget.reserve(cache.bytes_to_grow(larger)).unwrap();
                cache.grow(larger, reserved).unwrap();
                assert_eq!(
                    (allocated(&cache), layout.bytes(larger, context)),
                    (budget.used(), budget.used()),
                    "{layout:?} {larger} {context}"
                );
            }
        }
        assert_eq!(budget.used(), 0);
    }
}

proptest! {
    /// The bytes of a study are an upper bound that assumes the shortest context. It is enough for every context, question and answer,
    /// however the cache grows, and does not decrease with the number of tokens.
    #[test]
    fn the_price_of_the_shortest_context_is_enough(
        at in 0..18usize, shortest in 1..2000usize, longer in 0..2000usize, question in 1..400usize, answer in 0..3000usize
    ) {
        let layout = layouts().nth(at).unwrap();
        let context = shortest + longer;
        let price = |tokens| layout.bytes(layout.capacity(tokens), shortest);
        let limit = price(context + question + answer);
        let mut capacity = layout.capacity(context + question + answer.min(512));
        for tokens in context + question..=context + question + answer {
            if layout.capacity(tokens) > capacity {
                capacity = layout.capacity(tokens.max((capacity + capacity / 4).min(context + question + answer)));
            }
            prop_assert!(layout.bytes(capacity, context) <= limit, "{tokens} tokens in {layout:?}");
        }
        prop_assert!(limit >= price(context + question) && price(usize::MAX) == price(layout.sizes.max_context));
    }
}

#[test]
fn growth_that_fails_releases_its_memory() {
    // Memory for a full layer with this many places exists on no machine. The sliding layer, which grows first, gets about 2,000 places.
    const PLACES: usize = 1 << 42;
    let layout = layout();
    let budget = Budget::new(None);
    let mut cache = empty(&layout, &budget, 1024, PLACES - 2000);
    cache.advance(&Slot::consecutive(Branch::TRUNK, 0, 100).collect::<Vec<_>>());
    for index in 0..4 {
        let values = cache.tensors[index].tensor.try_extract_tensor_mut::<f32>().unwrap().1;
        values.iter_mut().zip(0u16..).for_each(|(value, number)| *value = f32::from(number));
    }
    let read = |cache: &Cache| (0..4).map(|index| cache.rows(index, 0..100).unwrap()).collect::<Vec<_>>();
    let (rows, used) = (read(&cache), budget.used());
    assert!(layout.places(true, PLACES, PLACES - 2000) > 2 * cache.sliding.capacity);
    for _ in 0..2 {
        let reserved = budget.reserve(cache.bytes_to_grow(PLACES)).unwrap();
        cache.grow(PLACES, reserved).unwrap_err();
        assert_eq!((budget.used(), allocated(&cache)), (used, used));
        assert_eq!((cache.capacity(), cache.length(), read(&cache)), (1024, 100, rows.clone()));
    }
    // The cache can still be used.
    let reserved = budget.reserve(cache.bytes_to_grow(2048)).unwrap();
    cache.grow(2048, reserved).unwrap();
    assert_eq!((cache.capacity(), read(&cache)), (2048, rows));
    assert_eq!((allocated(&cache), budget.used()), (budget.used(), layout.bytes(2048, PLACES - 2000)));
}
