//! JSON schemas of answers. A schema is hostile input: its compilation is bounded and does not panic.

use crate::cause::Problem;
use crate::decoder::error::QuestionError;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

/// Longest schema in bytes.
const MAX_SCHEMA: usize = 65_536;
/// Stack of the thread that compiles a schema. The compiler recurses as deep as the schema nests, and the size of a caller's stack is
/// unknown.
const STACK: usize = 64 << 20;

/// Compiles a schema.
///
/// # Errors
/// [`QuestionError::Schema`] if it is not a schema, exceeds a limit, or nothing conforms to it.
pub(super) fn compile(factory: &ParserFactory, schema: &str) -> Result<llguidance::Matcher, QuestionError> {
    let refused = |Problem { message, source }| QuestionError::Schema { message, source };
    if schema.len() > MAX_SCHEMA {
        return Err(refused(format!("it has {} bytes, more than {MAX_SCHEMA}", schema.len()).into()));
    }
    let mut value: Value = serde_json::from_str(schema).map_err(|e| refused(Problem::caused("it is not JSON", e)))?;
    let object = value.as_object_mut().ok_or_else(|| refused("it is not a JSON object".into()))?;
    // Other white space is not allowed, because an unsure model may repeat it until a limit ends the answer.
    object.insert("x-guidance".into(), json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " }));
    std::thread::scope(|scope| {
        let work = || super::compile(factory, TopLevelGrammar::from_json_schema(value));
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Problem::caused("no thread can be started to compile it", e))?;
        thread.join().unwrap_or_else(|_| Err("its compilation panicked".into()))
    })
    .map_err(refused)
}
