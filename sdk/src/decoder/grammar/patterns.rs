//! A bound on the patterns of a JSON schema that a text has to match at once.
//!
//! llguidance computes the next states of an intersection from all combinations of the next states of its patterns, and looks at its own
//! limits only afterwards: 58 short patterns in `allOf` took minutes and gigabytes. So the number of combinations is estimated here, from
//! the text of the patterns, before the schema is compiled.

use crate::cause::Problem;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Largest number of combinations, as a power of 2. The library takes about a second for so many.
const MAX_BITS: f64 = 17.0;
/// [`bits`] of a `format`, whose pattern the library has.
const FORMAT_BITS: f64 = 5.0;
/// Largest product of the number of names in all `patternProperties`, squared, and of the places that may join two of them. The library
/// compares all pairs of names at each such place.
const MAX_COMPARISONS: usize = 40_000;

/// Checks the patterns of a schema. It recurses along the references of the schema.
///
/// # Errors
/// If the patterns that apply to one text are too complex together, or there are too many names in `patternProperties`.
pub(super) fn check(schema: &Value) -> Result<(), Problem> {
    let mut found = Found::default();
    found.collect(schema);
    if (found.names * found.names).saturating_mul(1 + found.joins) > MAX_COMPARISONS {
        let (names, joins) = (found.names, found.joins);
        return Err(format!("it has {names} names in patternProperties with {joins} uses of allOf and $ref; write fewer of them").into());
    }
    if found.bits <= MAX_BITS {
        return Ok(());
    }
    // What a reference leads to is looked at by itself, too: a circle of references hides a part of it from whoever enters elsewhere.
    let roots = found.references.iter().filter_map(|reference| target(schema, reference)).chain([schema]);
    for root in roots {
        let mut walk = Walk { schema, all: found.bits, known: HashMap::new() };
        if walk.bits(root) > MAX_BITS {
            return Err("the patterns that one text has to match at once (pattern and format, through allOf, anyOf and $ref, or names in \
                        patternProperties) are too complex together; write one pattern instead of several, or simpler ones"
                .into());
        }
    }
    Ok(())
}

/// How many ways to go on a pattern has at most, as a power of 2: one for each class of characters, for each choice, and for a literal.
fn bits(pattern: &str) -> f64 {
    let (mut classes, mut choices, mut rest) = (HashSet::new(), 0, pattern);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            // A backslash and what it escapes.
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => {
                // A bracket may stand first in a class.
                let start = 1 + usize::from(rest[1..].starts_with('^'));
                let escaped = |at: usize| rest[..at].bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1;
                let end = rest.match_indices(']').map(|(at, _)| at).find(|&at| at > start && !escaped(at));
                end.map_or(rest.len(), |end| end + 1)
            }
            _ => first.len_utf8(),
        };
        match first {
            '\\' | '[' | '.' => _ = classes.insert(&rest[..length]),
            '|' => choices += 1,
            _ => {}
        }
        rest = &rest[length..];
    }
    // A pattern that need not begin with the text begins with any character.
    ((2 + classes.len() + choices) as f64).log2()
}

/// The part of a schema that a reference within it names.
fn target<'a>(schema: &'a Value, reference: &str) -> Option<&'a Value> {
    reference.strip_prefix('#').filter(|pointer| !pointer.contains('%')).and_then(|pointer| schema.pointer(pointer))
}

/// What a schema has in all.
#[derive(Default)]
struct Found<'a> {
    /// The sum of the bits of all patterns, formats and names.
    bits: f64,
    names: usize,
    /// Where schemas are joined: entries of `allOf`, and references.
    joins: usize,
    references: HashSet<&'a str>,
}

impl<'a> Found<'a> {
    fn collect(&mut self, value: &'a Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(entries) => {
                self.bits += own_bits(entries);
                self.joins += list(entries, "allOf").len();
                if let Some(Value::String(reference)) = entries.get("$ref") {
                    self.joins += 1;
                    self.references.insert(reference);
                }
                if let Some(Value::Object(names)) = entries.get("patternProperties") {
                    self.names += names.len();
                    self.bits += names.keys().map(|name| bits(name)).sum::<f64>();
                }
                entries.values().for_each(|value| self.collect(value));
            }
            _ => {}
        }
    }
}

/// The bits of an object's own pattern and format.
fn own_bits(entries: &Map<String, Value>) -> f64 {
    let pattern = entries.get("pattern").and_then(Value::as_str).map_or(0.0, bits);
    pattern + if entries.get("format").is_some_and(Value::is_string) { FORMAT_BITS } else { 0.0 }
}

/// The entries of a list under this key.
fn list<'a>(entries: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    entries.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// One walk through a schema.
struct Walk<'a> {
    schema: &'a Value,
    /// The sum of all bits.
    all: f64,
    /// The bits of the references that were followed. Those that are being followed have none yet.
    known: HashMap<&'a str, f64>,
}

impl<'a> Walk<'a> {
    /// The bits of the patterns that a text has to match at most, where it conforms to this schema or is a part of what does.
    fn bits(&mut self, value: &'a Value) -> f64 {
        let Value::Object(entries) = value else { return 0.0 };
        let joined = list(entries, "allOf").iter().map(|item| self.bits(item)).sum::<f64>();
        let chosen = ["anyOf", "oneOf"].into_iter().map(|key| self.most(list(entries, key).iter())).sum::<f64>();
        let referred = entries.get("$ref").and_then(Value::as_str).map_or(0.0, |reference| self.of_reference(reference));
        // A property may be named under `properties` and match one of `patternProperties`.
        let named = ["properties", "patternProperties"].into_iter().filter_map(|key| entries.get(key)?.as_object());
        let parts = named.map(|parts| self.most(parts.values())).sum::<f64>();
        let others = ["additionalProperties", "items", "additionalItems"].into_iter().filter_map(|key| entries.get(key));
        let others = self.most(others.chain(list(entries, "items")).chain(list(entries, "prefixItems")));
        let mut names: Vec<f64> = entries
            .get("patternProperties")
            .and_then(Value::as_object)
            .map_or_else(Vec::new, |names| names.keys().map(|name| bits(name)).collect());
        names.sort_by(|a, b| b.total_cmp(a));
        // Names are compared in pairs.
        let names = names.iter().take(2).sum::<f64>();
        joined + chosen + referred + own_bits(entries).max(parts).max(others).max(names)
    }

    fn most(&mut self, values: impl Iterator<Item = &'a Value>) -> f64 {
        values.map(|value| self.bits(value)).fold(0.0, f64::max)
    }

    fn of_reference(&mut self, reference: &'a str) -> f64 {
        if let Some(&known) = self.known.get(reference) {
            return known;
        }
        // What is not found here could be anything that the schema has.
        let Some(target) = target(self.schema, reference) else { return self.all };
        self.known.insert(reference, 0.0);
        let bits = self.bits(target);
        self.known.insert(reference, bits);
        bits
    }
}
