use super::*;
use crate::decoder::{QuestionError, Sampler, Sampling};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rstest::rstest;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static TOKENIZER: LazyLock<PromptTokenizer> = LazyLock::new(|| {
    PromptTokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle/tokenizer.json")).unwrap()
});
/// Number of logits. As in Gemma, it is larger than the number of tokens of the tokenizer.
const VOCABULARY: usize = 2300;
static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(&TOKENIZER, VOCABULARY).unwrap());

/// Random logits. Tags, brackets and numbers are likelier than other tokens.
struct RandomLogits(ChaCha8Rng);

impl RandomLogits {
    fn logits(&mut self, prefers_end: bool) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..VOCABULARY).map(|_| self.uniform() * 8.0).collect();
        let liked =
            ["<ref>", "</ref>", "<box>", "</box>", "(", ")", ",", "0", "1", "1024", "10", "<", "),(", "<image>", "<eos>", "<obj_3>"];
        for token in liked.iter().filter_map(|text| TOKENIZER.id(text)) {
            logits[token as usize] += self.uniform() * 6.0;
        }
        if prefers_end {
            logits[TOKENIZER.end_of_turn() as usize] = 100.0;
        }
        logits
    }

    fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }
}

/// The tokens of an answer to random logits, and whether it ended by itself. From `least` tokens on the end of the turn has the largest
/// logit, and after `most` tokens the answer is cut.
fn answer(form: &Form, sampling: Sampling, least: usize, most: usize) -> (Vec<u32>, bool) {
    let mut random = RandomLogits(ChaCha8Rng::seed_from_u64(sampling.seed));
    let mut sampler = Sampler::new(sampling, GRAMMAR.matcher(form).unwrap()).unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < most {
        let choice = sampler.choose(&random.logits(tokens.len() >= least)).unwrap();
        sampler.accept(choice.token).unwrap();
        let token = choice.token as u32;
        if token == TOKENIZER.end_of_turn() {
            return (tokens, true);
        }
        tokens.push(token);
    }
    (tokens, false)
}

fn decode(tokens: &[u32]) -> String {
    TOKENIZER.inner().decode(tokens, false).unwrap()
}

/// Parses a text without the grammar. Returns the number of phrases and boxes, or the place where it is not well-formed.
fn well_formed(text: &str) -> Result<[usize; 2], String> {
    let (mut found, mut rest) = ([0; 2], text);
    let plain = |text: &str| text.split('<').skip(1).all(|after| after.starts_with([' ', '=', '.', '+', '-']) || starts_with_digit(after));
    let wrong = |rest: &str| Err(format!("{:?}", rest.chars().take(60).collect::<String>()));
    if text.chars().any(|c| c.is_control() && c.is_ascii() && !matches!(c, '\t' | '\n' | '\r')) {
        return wrong("a control character");
    }
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("<ref>") {
            let Some((phrase, after)) = after.split_once("</ref>") else { return wrong(rest) };
            if phrase.is_empty() || !plain(phrase) {
                return wrong(rest);
            }
            found[0] += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("<box>") {
            let Some((corners, after)) = after.split_once("</box>") else { return wrong(rest) };
            let numbers: Vec<&str> = corners.split(['(', ')', ',']).filter(|part| !part.is_empty()).collect();
            let canonical = |n: &&str| n.parse::<u32>().is_ok_and(|v| v <= 1024 && v.to_string() == **n);
            let [x0, y0, x1, y1] = numbers[..] else { return wrong(rest) };
            if !numbers.iter().all(canonical) || format!("({x0},{y0}),({x1},{y1})") != corners {
                return wrong(rest);
            }
            found[1] += 1;
            rest = after;
        } else {
            let end = rest[1..].find('<').map_or(rest.len(), |next| next + 1);
            if !plain(&rest[..end]) {
                return wrong(rest);
            }
            rest = &rest[end..];
        }
    }
    Ok(found)
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn the_reader_of_these_tests_finds_errors() {
    assert_eq!(well_formed("a <ref>mass, < 5 mm</ref><box>(0,1024),(7,10)</box> b <5"), Ok([1, 1]));
    for wrong in [
        "<ref>mass",
        "<ref></ref>",
        "<ref>a<ref>b</ref>",
        "</ref>",
        "<box>(1,2),(3,4)",
        "<box>(01,2),(3,4)</box>",
        "<box>(1,2),(3,1025)</box>",
        "<box>(1,2)(3,4)</box>",
        "<box>(1,2),(3,4),</box>",
        "<image>",
        "<",
        "\0",
    ] {
        assert!(well_formed(wrong).is_err(), "{wrong}");
    }
}

#[rstest]
#[case(1.5, 1.0)]
#[case(30.0, 1.0)]
#[case(1.5, 1.3)]
#[case(0.0, 1.0)]
#[case(0.0, 1.3)]
fn answers_to_random_logits_are_well_formed(#[case] temperature: f32, #[case] repetition_penalty: f32) {
    let (mut tokens, mut found, controls) = (0, [0; 2], TOKENIZER.control_tokens());
    for seed in 0..24 {
        let sampling = Sampling { temperature, repetition_penalty, seed, ..Sampling::default() };
        let (answered, ended) = answer(&Form::Grounded, sampling, 250, 4000);
        let text = decode(&answered);
        assert!(ended, "{seed}: {text}");
        assert!(answered.iter().all(|token| !controls.contains_key(token)), "{seed}: {text}");
        let [phrases, boxes] = well_formed(&text).unwrap_or_else(|wrong| panic!("{seed}: {wrong} in {text:?}"));
        found = [found[0] + phrases, found[1] + boxes];
        tokens += answered.len();
    }
    assert!(tokens >= 6000 && found[0] > 24 && found[1] > 24, "{tokens} tokens with {found:?}");
    // Without the grammar, the same logits give text that is not well-formed.
    let sampling = Sampling { temperature, repetition_penalty, ..Sampling::default() };
    let (answered, _) = answer(&Form::Free, sampling, 250, 300);
    assert!(answered.iter().any(|token| controls.contains_key(token)) && well_formed(&decode(&answered)).is_err());
}

#[test]
fn checks_of_single_tokens_agree_with_the_mask() {
    let schema = r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a","b"]}"#;
    for form in [Form::Grounded, Form::Json(schema.into())] {
        let mut sampler = GRAMMAR.matcher(&form).unwrap().unwrap();
        let mut random = RandomLogits(ChaCha8Rng::seed_from_u64(5));
        for _ in 0..60 {
            let mask = sampler.mask().unwrap();
            for token in 0..VOCABULARY as i64 {
                assert_eq!(sampler.allows(token).unwrap(), mask.is_allowed(token as u32), "{form}: {token}");
            }
            let logits = random.logits(false);
            let allowed = (0..VOCABULARY as u32).filter(|&token| mask.is_allowed(token));
            let token = allowed.max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])).unwrap();
            sampler.accept(i64::from(token)).unwrap();
        }
        assert!(!sampler.allows(-1).unwrap());
    }
}

#[test]
fn greedy_decoding_takes_the_most_likely_allowed_token() {
    let mut sampler = Sampler::new(Sampling::default(), GRAMMAR.matcher(&Form::Grounded).unwrap()).unwrap();
    let id = |text: &str| TOKENIZER.id(text).unwrap() as usize;
    let mut logits = vec![0.0; VOCABULARY];
    (logits[id("</ref>")], logits[id("<ref>")], logits[id(",")]) = (9.0, 5.0, 3.0);
    let choice = sampler.choose(&logits).unwrap();
    assert_eq!((choice.token, choice.margin), (id("<ref>") as i64, 2.0), "no phrase is open, so its end is not allowed");
    // The log probability is that of the model, without the constraint.
    let expected = 5.0 - (9f64.exp() + 5f64.exp() + 3f64.exp() + (VOCABULARY - 3) as f64).ln();
    assert!((f64::from(choice.log_probability) - expected).abs() < 1e-4, "{}", choice.log_probability);
    sampler.accept(choice.token).unwrap();
    assert_eq!(sampler.choose(&logits).unwrap().token, id(",") as i64, "a phrase is not empty, and does not contain a phrase");
    sampler.accept(id(",") as i64).unwrap();
    assert_eq!(sampler.choose(&logits).unwrap(), sampler.choose(&logits).unwrap());
    let closing = sampler.choose(&logits).unwrap();
    assert_eq!(
        (closing.token, closing.margin),
        (id("</ref>") as i64, 4.0),
        "the margin is over all tokens if the most likely one is allowed"
    );
}

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "finding": {"enum": ["effusion", "mass <5 mm", "none"]},
        "certainty": {"type": "integer", "minimum": 0, "maximum": 100},
        "box": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1024}, "minItems": 4, "maxItems": 4},
        "note": {"type": "string", "maxLength": 20}
    },
    "required": ["finding", "certainty", "box", "note"],
    "additionalProperties": false
}"#;

#[rstest]
#[case(0.0)]
#[case(1.5)]
#[case(30.0)]
fn json_conforms_to_its_schema(#[case] temperature: f32) {
    for seed in 0..40 {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let (answered, ended) = answer(&Form::Json(SCHEMA.into()), sampling, 0, 400);
        let text = decode(&answered);
        assert!(ended, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(value.as_object().unwrap().len(), 4, "{text}");
        assert!(["effusion", "mass <5 mm", "none"].contains(&value["finding"].as_str().unwrap()), "{text}");
        assert!(value["certainty"].as_u64().unwrap() <= 100, "{text}");
        let corners = value["box"].as_array().unwrap();
        assert!(corners.len() == 4 && corners.iter().all(|c| c.as_u64().unwrap() <= 1024), "{text}");
        assert!(value["note"].as_str().unwrap().chars().count() <= 20, "{text}");
    }
}

/// An independent validator reads the answers to schemas whose numbers are at the borders of what is accepted.
#[rstest]
#[case(r#"{"const":9007199254740991}"#)]
#[case(r#"{"enum":[-9007199254740991,[0.1,1e-7],9007199254740990]}"#)]
#[case(r#"{"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991}"#)]
#[case(r#"{"type":"integer","exclusiveMinimum":9007199254740989,"exclusiveMaximum":9007199254740991}"#)]
#[case(r#"{"type":"integer","minimum":9007199254740991}"#)]
#[case(r#"{"type":"integer","minimum":0.5,"exclusiveMaximum":4.5}"#)]
#[case(r#"{"type":"number","minimum":9007199254740991}"#)]
#[case(r#"{"type":"number","exclusiveMinimum":-0.125,"maximum":1e-7}"#)]
#[case(r#"{"type":"number","minimum":0.1,"exclusiveMaximum":0.3}"#)]
#[case(r#"{"type":"number","maximum":-1.25}"#)]
#[case(r#"{"type":"integer","multipleOf":1000,"minimum":1,"maximum":1000000}"#)]
#[case(r#"{"type":"integer","multipleOf":30,"maximum":9999,"allOf":[{"type":"integer","multipleOf":21,"minimum":-999}]}"#)]
#[case(r#"{"type":"number","multipleOf":0.25,"minimum":1,"maximum":40}"#)]
fn numbers_conform_to_their_schema(#[case] schema: &str) {
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    for seed in 0..40 {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        let (answered, ended) = answer(&Form::Json(schema.into()), sampling, 8, 400);
        let text = decode(&answered);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(ended && validator.is_valid(&value), "{text}");
    }
}

#[test]
fn compiled_schemas_are_kept_for_later_questions() {
    let grammar = Grammar::new(&TOKENIZER, VOCABULARY).unwrap();
    for count in (0..3 * MAX_SCHEMAS).chain([0, 3 * MAX_SCHEMAS - 1]) {
        let schema = format!(r#"{{"const": {count}}}"#);
        let mut matcher = grammar.matcher(&Form::Json(schema.clone())).unwrap().unwrap();
        let first = count.to_string().chars().next().unwrap().to_string();
        assert!(matcher.allows(i64::from(TOKENIZER.id(&first).unwrap())).unwrap());
        let kept = grammar.schemas.lock().unwrap();
        assert!(kept.len() <= MAX_SCHEMAS && kept.back().unwrap().0 == schema);
    }
}

/// The automaton's work for the masks of a text. The first count is left out: it has all work since the matcher was cloned.
fn work(mut matcher: llguidance::Matcher, text: &str) -> u64 {
    let tokens = TOKENIZER.inner().encode(text, false).unwrap();
    let each = tokens.get_ids().iter().map(|&token| {
        matcher.consume_token(token).unwrap();
        matcher.compute_mask().unwrap();
        matcher.last_step_stats().unwrap().lexer_cost
    });
    each.skip(1).sum()
}

#[test]
fn answers_find_an_automaton_that_has_its_states() {
    let grammar = Grammar::new(&TOKENIZER, VOCABULARY).unwrap();
    let schema = r#"{"type": "array", "items": {"type": "string", "minLength": 40, "maxLength": 60}, "minItems": 1}"#;
    let compiled = grammar.matcher(&Form::Json(schema.into())).unwrap().unwrap().inner;
    let schema = TopLevelGrammar::from_json_schema(serde_json::from_str(schema).unwrap());
    let unexplored = llguidance::Matcher::new(grammar.factory.create_parser(schema));
    let text = r#"["The heart size is normal. There is no pleural effusion."#;
    let (explored, unexplored) = (work(compiled, text), work(unexplored, text));
    assert!(explored * 3 < unexplored, "{explored} of {unexplored}");
}

/// Exploring takes a text that no answer has, so that a limit which it exceeds must not be one of answers.
#[test]
fn a_walk_that_exceeds_a_limit_spoils_no_answer() {
    let mut grammar = Grammar::new(&TOKENIZER, VOCABULARY).unwrap();
    let schema = r#"{"anyOf": [{"const": "no"}, {"type": "string", "minLength": 40, "maxLength": 90}]}"#;
    let (mut exceeded, mut compiled) = (0, 0);
    for fuel in (100..4000).step_by(100) {
        grammar.factory.limits_mut().step_lexer_fuel = fuel;
        let schema = || TopLevelGrammar::from_json_schema(serde_json::from_str(schema).unwrap());
        let Ok(mut matcher) = super::compile(&grammar.factory, schema()) else { continue };
        compiled += 1;
        let mut unexplored = llguidance::Matcher::new(grammar.factory.create_parser(schema()));
        exceeded += usize::from(unexplored.compute_mask().is_ok() && !explore(unexplored));
        assert!(matcher.compute_mask().is_ok(), "with {fuel}: {:?}", matcher.get_error());
    }
    assert!(exceeded > 0, "no walk of {compiled} exceeded its limit");
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

fn chain(length: usize) -> String {
    let links: Vec<String> = (0..length).map(|i| format!(r##""{i}":{{"$ref":"#/$defs/{}"}}"##, i + 1)).collect();
    format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"{length}":{{"type":"integer"}}}}}}"##, links.join(","))
}

#[rstest]
#[case::empty("", "not JSON")]
#[case::no_json("{", "not JSON")]
#[case::no_schema("[]", "not a JSON object")]
#[case::unknown_type(r#"{"type":"objekt"}"#, "objekt")]
#[case::not_supported(r#"{"type":"array","uniqueItems":true}"#, "uniqueItems")]
#[case::nothing_meets_it(r#"{"type":"integer","minimum":3,"maximum":2}"#, "minimum")]
#[case::wrong_expression(r#"{"type":"string","pattern":"(a"}"#, "unclosed group")]
#[case::nowhere(r##"{"$ref":"#/$defs/none"}"##, "none")]
#[case::a_circle(r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##, "nothing conforms to it")]
#[case::rounded_constant(r#"{"const":9007199254740993}"#, "9007199254740993, the value of const, is beyond 9007199254740991")]
#[case::rounded_float(r#"{"const":9007199254740993.0}"#, "the value of const, is beyond")]
#[case::rounded_choice(r#"{"properties":{"a":{"enum":["b",[-9007199254740992]]}}}"#, "-9007199254740992, the value of enum, is beyond")]
#[case::rounded_minimum(r#"{"type":"integer","minimum":18446744073709551615}"#, "18446744073709551615, the value of minimum, is beyond")]
#[case::huge_minimum(r#"{"type":"number","minimum":1e300}"#, "1e+300, the value of minimum, is beyond")]
#[case::huge_maximum(r#"{"type":"integer","maximum":1e300}"#, "1e+300, the value of maximum, is beyond")]
#[case::tiny_multiple(r#"{"type":"number","multipleOf":1e-300}"#, "too many digits")]
#[case::long_multiple(r#"{"type":"integer","multipleOf":65536}"#, "65536, a value of multipleOf, has too many digits")]
#[case::overflowing_multiples(r#"{"type":"integer","multipleOf":5003,"allOf":[{"type":"integer","multipleOf":5009}]}"#, "of multipleOf")]
#[case::no_multiple(r#"{"type":"integer","multipleOf":0}"#, "0, the value of multipleOf, is not above 0")]
#[case::far_away(r#"{"$ref":"https://example.com/schema.json"}"#, "example.com")]
fn bad_schemas_are_refused(#[case] schema: &str, #[case] hint: &str) {
    let error = GRAMMAR.matcher(&Form::Json(schema.into())).err().unwrap();
    assert!(matches!(error, crate::Error::Question(QuestionError::Schema { .. })), "{error}");
    let message = error.full_message();
    assert!(!message.contains('\n'), "{message}");
    println!("{message}");
    assert!(message.contains(hint), "{message}");
}

/// These schemas are refused or compiled in bounded time, without a panic or a stack overflow.
#[test]
fn hostile_schemas_are_bounded() {
    let string = |pattern: &str| format!(r#"{{"type":"string","pattern":"{pattern}"}}"#);
    let properties: Vec<String> = (0..2500).map(|i| format!(r#""{i}":{{"type":"number"}}"#)).collect();
    let choice = |i: usize| {
        let one = |k| format!(r#"{{"type":"object","properties":{{"{i}":{{"const":{k}}},"all":{{"minimum":{k}}}}}}}"#);
        format!(r#"{{"anyOf":[{}]}}"#, (0..5).map(one).collect::<Vec<_>>().join(","))
    };
    let names: Vec<String> = (0..300).map(|i| format!(r#""^.*{i}.*x$":{{"type":"integer"}}"#)).collect();
    let schemas = [
        ("long", " ".repeat(70_000)),
        ("deep", nested(r#"{"type":"array","items":"#, "{}", "}", 2000)),
        ("deep enough to parse", nested(r#"{"type":"array","items":"#, r#"{"type":"integer"}"#, "}", 120)),
        ("all of all", nested(r#"{"allOf":[{"type":"object"},"#, "{}", "]}", 60)),
        ("any of any", nested(r#"{"anyOf":[{"type":"string"},"#, "{}", "]}", 60)),
        ("chained", chain(1500)),
        ("many properties", format!(r#"{{"type":"object","properties":{{{}}}}}"#, properties.join(","))),
        ("repeated repetition", string("((a{1000}){1000}){1000}")),
        ("explosion", string("(a|aa)*(a|b)*a(a|b){400}c")),
        ("many brackets", string(&nested("(", "a", ")", 20_000))),
        ("long pattern", string(&"ab|".repeat(20_000))),
        ("long text", string(&"ab".repeat(30_000))),
        ("many items", r#"{"type":"array","items":{"type":"integer"},"minItems":100000000}"#.into()),
        ("long string", r#"{"type":"string","minLength":4000000000}"#.into()),
        ("multiple", r#"{"type":"number","multipleOf":1e-300}"#.into()),
        ("huge number", r#"{"type":"integer","minimum":-1e308,"maximum":1e308}"#.into()),
        ("product of choices", format!(r#"{{"allOf":[{}]}}"#, (0..14).map(choice).collect::<Vec<_>>().join(","))),
        ("many texts", format!(r#"{{"enum":[{}]}}"#, (0..6000).map(|i| format!(r#""{i}a""#)).collect::<Vec<_>>().join(","))),
        ("patterns of names", format!(r#"{{"type":"object","patternProperties":{{{}}}}}"#, names.join(","))),
        ("pattern and length", r#"{"type":"string","pattern":"^(.*x){60}$","minLength":1000,"maxLength":2000}"#.into()),
    ];
    for (name, schema) in schemas {
        let start = Instant::now();
        let verdict = GRAMMAR.matcher(&Form::Json(schema)).map(|matcher| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, ..Sampling::default() }, matcher).unwrap();
            let mut random = RandomLogits(ChaCha8Rng::seed_from_u64(1));
            (0..50).try_for_each(|_| sampler.choose(&random.logits(false)).and_then(|choice| sampler.accept(choice.token)))
        });
        let verdict = verdict.and_then(|answered| Ok(answered?)).map_or_else(|e| e.full_message(), |()| "taken".into());
        println!("{name}: {:?}, {verdict}", start.elapsed());
        // Seconds at most if it is bounded, hours if it is not; the limit leaves room for a slow machine.
        assert!(start.elapsed() < Duration::from_secs(600), "{name}");
        assert!(!verdict.contains("panic"), "{name}: {verdict}");
    }
}

/// Schemas in which one text has to match several patterns at once.
fn at_once(count: usize, pattern: impl Fn(usize) -> String) -> String {
    let one = |i| format!(r#"{{"type":"string","pattern":"{}"}}"#, pattern(i));
    format!(r#"{{"allOf":[{}]}}"#, (0..count).map(one).collect::<Vec<_>>().join(","))
}

fn with_names(count: usize, name: impl Fn(usize) -> String) -> String {
    let one = |i| format!(r#""{}":{{"type":"integer"}}"#, name(i));
    format!(r#"{{"type":"object","patternProperties":{{{}}}}}"#, (0..count).map(one).collect::<Vec<_>>().join(","))
}

/// An alternative for each of `n` characters.
fn wide(n: u32) -> impl Fn(usize) -> String {
    move |i| (0..n).map(|k| format!(".*[a{}].{{{}}}x", char::from_u32(0x4e00 + k).unwrap(), k as usize + i)).collect::<Vec<_>>().join("|")
}

/// The library would take minutes and gigabytes for these.
#[test]
fn patterns_that_are_too_complex_together_are_refused_before_they_are_compiled() {
    let stars = |i: usize| format!("^(.*[ab].{{{i}}})*$");
    let pluses = |i: usize| format!("^(.*[ab].{{{i}}})+x$");
    let text = |i: usize| format!(r#"{{"type":"string","pattern":"{}"}}"#, pluses(i));
    let definitions: Vec<String> = (0..58).map(|i| format!(r#""{i}":{}"#, text(i))).collect();
    let definitions = definitions.join(",");
    let links: Vec<String> = (0..58).map(|i| format!(r##"{{"$ref":"#/$defs/{i}"}}"##)).collect();
    let nested = (0..20).fold(text(20), |inner, i| format!(r#"{{"allOf":[{},{inner}]}}"#, text(i)));
    // In a circle: each definition leads to the next by a property, and the last one to all of them at once.
    let circle: Vec<String> = (0..58)
        .map(|i| format!(r##""{i}":{{"type":"object","properties":{{"n":{},"z":{{"$ref":"#/$defs/{}"}}}}}}"##, text(i), i + 1))
        .collect();
    let circle = format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"58":{{"allOf":[{}]}}}}}}"##, circle.join(","), links.join(","));
    let joined = links.join(",");
    let schemas = [
        at_once(58, stars),
        at_once(58, pluses),
        at_once(9, pluses),
        at_once(4, wide(40)),
        nested,
        circle,
        format!(r#"{{"allOf":[{joined}],"$defs":{{{definitions}}}}}"#),
        format!(r#"{{"type":"array","items":{{"allOf":[{joined}]}},"$defs":{{{definitions}}}}}"#),
        format!(r##"{{"allOf":[{{"$ref":"#a"}}],"$defs":{{"a":{{"$anchor":"a","allOf":[{joined}]}},{definitions}}}}}"##),
        at_once(20, |i| format!("^(.*[ab].{{{i}}})+x$\",\"format\":\"uri")),
        with_names(2, wide(400)),
        with_names(400, |i| format!("^n{i}x$")),
    ];
    for schema in schemas {
        let error = GRAMMAR.matcher(&Form::Json(schema.clone())).err().unwrap().full_message();
        assert!(error.contains("too complex together; write") || error.contains("names in patternProperties with"), "{schema}: {error}");
    }
}

#[test]
fn patterns_that_a_text_can_match_at_once_are_taken() {
    let schemas = [
        at_once(4, |i| ["[A-Z]", "[a-z]", "[0-9]", "^.{8,40}$"][i].into()),
        at_once(3, |i| ["^[A-Za-z0-9 ,.()-]{1,200}$", "(left|right|both)", "^(no |a |the ).*$"][i].into()),
        at_once(2, |i| ["^20[0-9]{2}-.*Z$\",\"format\":\"date-time", "^.{3,40}$"][i].into()),
        at_once(7, |i| format!("^(.*[ab].{{{i}}})*$")),
        with_names(40, |i| format!("^{i}-.*[ab].{{{i}}}$")),
        // A tree, whose nodes have a pattern each.
        r##"{"type":"object","properties":{"name":{"type":"string","pattern":"^[a-z]+$"},"all":{"type":"array","items":{"$ref":"#"}}}}"##
            .into(),
        // Many patterns, of which a text has to match one.
        format!(r#"{{"anyOf":[{}]}}"#, vec![at_once(2, |i| ["^[a-z]+$", "[aeiou]"][i].into()); 60].join(",")),
    ];
    for schema in schemas {
        let taken = GRAMMAR.matcher(&Form::Json(schema.clone()));
        assert!(taken.is_ok(), "{schema}: {}", taken.err().unwrap().full_message());
    }
}
