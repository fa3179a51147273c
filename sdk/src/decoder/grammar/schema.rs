//! JSON schemas of answers. A schema is hostile input: its compilation is bounded and does not panic.

use super::patterns;
use crate::cause::{Problem, source};
use crate::decoder::error::QuestionError;
use crate::runtime::RuntimeError;
use crate::text::brief;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

/// Longest schema in bytes.
const MAX_SCHEMA: usize = 65_536;
/// Stack of the thread that compiles a schema. The compiler recurses as deep as the schema nests, and the size of a caller's stack is
/// unknown.
const STACK: usize = 64 << 20;

/// Largest magnitude of a number in a schema. The compiler computes with floats of 64 bits, which hold every integer up to here exactly.
const MAX_NUMBER: f64 = 9_007_199_254_740_991.0;
/// Bound of the least common multiple of all values of `multipleOf`, counted in units of their last decimal place. The compiler multiplies
/// two of their multiples in 32 bits, and its automaton has as many states.
const MAX_MULTIPLE: u64 = 65_535;

/// Compiles a schema.
///
/// # Errors
/// [`QuestionError::Schema`] if it is not a schema, exceeds a limit, has numbers that are too large, or nothing conforms to it.
/// [`RuntimeError::Threads`] if the system gives no thread.
pub(super) fn compile(factory: &ParserFactory, schema: &str) -> crate::Result<llguidance::Matcher> {
    let refused = |Problem { message, source }| QuestionError::Schema { message, source };
    if schema.len() > MAX_SCHEMA {
        return Err(refused(format!("it has {} bytes, more than {MAX_SCHEMA}", schema.len()).into()).into());
    }
    let mut value: Value = serde_json::from_str(schema).map_err(|e| refused(Problem::caused("it is not JSON", e)))?;
    let mut multiples = Vec::new();
    check_numbers("the schema", &value, &mut multiples).map_err(refused)?;
    check_multiples(&multiples).map_err(refused)?;
    let original = value.clone();
    let object = value.as_object_mut().ok_or_else(|| refused("it is not a JSON object".into()))?;
    // Other white space is not allowed, because an unsure model may repeat it until a limit ends the answer.
    object.insert("x-guidance".into(), json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " }));
    std::thread::scope(|scope| {
        let work = || {
            patterns::check(&original)?;
            super::compile(factory, TopLevelGrammar::from_json_schema(value))
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| RuntimeError::Threads { threads: 1, source: source(e) })?;
        Ok(thread.join().unwrap_or_else(|_| Err("its compilation panicked".into())).map_err(refused)?)
    })
}

/// Refuses numbers that the compiler would round, because answers would not conform to the schema then. Collects the `multipleOf`s.
/// `name` is the key of the value, or of the list that it is in.
fn check_numbers(name: &str, value: &Value, multiples: &mut Vec<f64>) -> Result<(), Problem> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_numbers(name, item, multiples)),
        Value::Object(entries) => entries.iter().try_for_each(|(name, value)| check_numbers(name, value, multiples)),
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| float.abs() <= MAX_NUMBER);
            let float = float.ok_or_else(|| format!("{number}, the value of {}, is beyond {MAX_NUMBER} (2^53 - 1)", brief(name)))?;
            if name == "multipleOf" {
                multiples.push(float);
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// Refuses values of `multipleOf` whose multiples overflow in the compiler.
fn check_multiples(multiples: &[f64]) -> Result<(), Problem> {
    if let Some(wrong) = multiples.iter().find(|&&multiple| multiple <= 0.0) {
        return Err(format!("{wrong}, the value of multipleOf, is not above 0").into());
    }
    // The shortest decimal text of a float is the number that the schema has.
    let texts: Vec<String> = multiples.iter().map(f64::to_string).collect();
    let decimals = |text: &str| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let most = texts.iter().map(|text| decimals(text)).max().unwrap_or(0);
    texts.iter().try_fold(1, |common, text| {
        let multiple = format!("{}{}", text.replace('.', ""), "0".repeat(most - decimals(text))).parse::<u64>().ok();
        let multiple = multiple.filter(|&multiple| multiple <= MAX_MULTIPLE).map(|multiple| least_common_multiple(common, multiple));
        multiple
            .filter(|&multiple| multiple <= MAX_MULTIPLE)
            .ok_or_else(|| format!("{text}, a value of multipleOf, has too many digits by itself or in a common multiple with the others"))
    })?;
    Ok(())
}

/// The least common multiple of two numbers that are not 0. Their product has to fit into 64 bits.
fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a * b / divisor
}
