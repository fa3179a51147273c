//! Values of FHIR: codes, numbers, texts.

use crate::output::codes::Code;
use crate::output::uid;
use serde_json::{Value, json};

/// A coded concept, with a text for people if it says more than the code's meaning.
pub(super) fn concept(code: Code, text: &str) -> Value {
    json!({ "coding": [coding(code)], "text": text })
}

/// A code of its system.
pub(super) fn coding(Code { value, scheme, meaning }: Code) -> Value {
    json!({ "system": system(scheme), "code": value, "display": meaning })
}

/// The URI of a coding scheme of DICOM.
fn system(scheme: &str) -> String {
    match scheme {
        "DCM" => "http://dicom.nema.org/resources/ontology/DCM".into(),
        "SCT" => "http://snomed.info/sct".into(),
        "UCUM" => "http://unitsofmeasure.org".into(),
        private => format!("urn:oid:{}", uid::derived(&[b"coding scheme", private.as_bytes()])),
    }
}

/// A number with its unit. One that is not finite is not a value.
pub(super) fn quantity(value: f32, unit: Code) -> Value {
    // The decimal digits of single precision, and not those of its value in double precision.
    let number: Option<f64> = value.to_string().parse().ok().filter(|number: &f64| number.is_finite());
    number.map_or(Value::Null, |number| json!({ "value": number, "unit": unit.meaning, "system": system(unit.scheme), "code": unit.value }))
}

/// A component of an observation; its value is named by its type, such as `valueString`.
pub(super) fn component(code: Code, named: &str, value: Value) -> Value {
    json!({ "code": concept(code, ""), named: value })
}

/// The text of a resource as XHTML.
pub(super) fn narrative(text: &str) -> String {
    let escaped = clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\n', "<br/>");
    format!(r#"<div xmlns="http://www.w3.org/1999/xhtml">{escaped}</div>"#)
}

/// Makes a value one that FHIR allows: without what is empty, and texts without control characters and without spaces around them.
pub(super) fn pruned(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(clean(&text)).filter(|text| !text.is_empty()).map(Value::String),
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().filter_map(pruned).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(members) => {
            let members: serde_json::Map<_, _> = members.into_iter().filter_map(|(key, value)| Some((key, pruned(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}

/// Without control characters other than ends of lines and tabulators, and without noncharacters, which XML does not allow.
fn clean(text: &str) -> String {
    let allowed = |c: &char| (matches!(c, '\n' | '\t') || !c.is_control()) && !matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.replace("\r\n", "\n").chars().filter(allowed).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::codes;

    #[test]
    fn nothing_is_empty_and_numbers_have_their_digits() {
        let value = json!({ "a": "", "b": [null, " "], "c": { "d": [] }, "e": [" x\u{7}\r\ny "], "f": false });
        assert_eq!(pruned(value), Some(json!({ "e": ["x\ny"], "f": false })));
        assert_eq!(pruned(json!({ "a": null })), None);
        assert_eq!(quantity(0.9876, codes::NO_UNITS)["value"].to_string(), "0.9876");
        assert_eq!(
            quantity(300.0, codes::PIXELS),
            json!({
                "value": 300.0, "unit": "Pixels", "system": "http://unitsofmeasure.org", "code": "{pixels}",
            })
        );
        assert!(quantity(f32::NAN, codes::NO_UNITS).is_null() && quantity(f32::INFINITY, codes::NO_UNITS).is_null());
    }

    #[test]
    fn a_narrative_has_no_markup_but_its_own() {
        let expected = r#"<div xmlns="http://www.w3.org/1999/xhtml">a &lt;b&gt; &amp;<br/>c</div>"#;
        assert_eq!(narrative("a <b> &\r\nc\u{0}"), expected);
    }
}
