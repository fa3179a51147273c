//! JSON schemas of answers. They come from outside: whatever they ask for, compiling them ends soon, and without a panic.

use crate::cause::Problem;
use crate::decoder::error::QuestionError;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

/// Longest schema in bytes.
const LONGEST: usize = 65_536;
/// Schemas nest, and so do the calls that compile them: not on a caller's stack, whose size is unknown.
const STACK: usize = 64 << 20;

/// A schema as a grammar.
///
/// # Errors
/// [`QuestionError::Schema`] if it is no schema, takes too much, or nothing meets it.
pub(super) fn compile(factory: &ParserFactory, schema: &str) -> Result<llguidance::Matcher, QuestionError> {
    let refused = |Problem { message, source }| QuestionError::Schema { message, source };
    if schema.len() > LONGEST {
        return Err(refused(format!("it has {} bytes, more than {LONGEST}", schema.len()).into()));
    }
    let mut value: Value = serde_json::from_str(schema).map_err(|e| refused(Problem::caused("it is not JSON", e)))?;
    let object = value.as_object_mut().ok_or_else(|| refused("it is not a JSON object".into()))?;
    // No room between values: a model that is unsure would fill it forever.
    object.insert("x-guidance".into(), json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " }));
    std::thread::scope(|scope| {
        let work = || super::compile(factory, TopLevelGrammar::from_json_schema(value));
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Problem::caused("no thread can be had to compile it", e))?;
        thread.join().unwrap_or_else(|_| Err("the compiler gave up".into()))
    })
    .map_err(refused)
}
