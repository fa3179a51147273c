//! The JSON Schemas in `docs/schema`, which are generated from the records and their documentation. `ANATOMIX_BLESS=1` writes them.
//!
//! This is compiled for tests only, so that no program contains the generator.

use super::record::{AskRecord, PerceiveRecord};
use super::setup::{BundleRecord, ProvidersRecord, SignedRecord, VerifiedRecord};
use crate::anatomy::{Label, Structure};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The scores of the labels: an object with exactly these names.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    let score = json!({ "type": "number", "minimum": 0, "maximum": 1 });
    let scores: Map<String, Value> = Label::ALL.into_iter().map(|label| (label.name().into(), score.clone())).collect();
    json_schema!({ "type": "object", "properties": scores, "required": Label::ALL.map(Label::name) })
}

/// The name of a structure.
pub(super) fn structure(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Structure::all().map(Structure::name).collect::<Vec<_>>() })
}

/// The schema of a record, as the file in `docs/schema` has it.
fn schema<T: JsonSchema>(name: &str) -> String {
    let mut schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    schema.insert("$id".into(), format!("urn:anatomix:json:{name}").into());
    let mut schema = schema.to_value();
    plain(&mut schema);
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

/// Removes what only the documentation of Rust has from all descriptions: the addresses of links, and marks of code.
fn plain(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = described(text);
            }
            object.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

fn described(text: &str) -> String {
    let mut parts = text.split("](crate::");
    let first = parts.next().unwrap_or_default().to_owned();
    let whole = parts.fold(first, |whole, part| whole + part.split_once(')').map_or("", |(_, rest)| rest));
    ["[`", "`]", "`", "crate::"].iter().fold(whole, |whole, mark| whole.replace(mark, "")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_schemas_match_the_records() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, generated) in [
        ("study", schema::<PerceiveRecord> as fn(&str) -> String),
        ("answer", schema::<AskRecord>),
        ("bundle-info", schema::<BundleRecord>),
        ("bundle-verify", schema::<VerifiedRecord>),
        ("bundle-sign", schema::<SignedRecord>),
        ("providers", schema::<ProvidersRecord>),
    ] {
        let generated = generated(name);
        let path = folder.join(format!("{name}.json"));
        if std::env::var_os("ANATOMIX_BLESS").is_some() {
            fs::create_dir_all(&folder).expect("docs/schema can be created");
            fs::write(&path, &generated).expect("docs/schema is writable");
        }
        let committed = fs::read_to_string(&path).expect("a file in docs/schema; ANATOMIX_BLESS=1 makes it");
        assert!(generated == committed, "docs/schema/{name}.json is not what the records say; run this test again with ANATOMIX_BLESS=1");
        jsonschema::meta::validate(&serde_json::from_str(&generated).unwrap()).expect("a JSON Schema");
    }
}

#[test]
fn descriptions_are_plain_text() {
    let text = "The `first` of [`Radiograph::sha256`](crate::Radiograph::sha256),\nand [`crate::X`].";
    assert_eq!(described(text), "The first of Radiograph::sha256, and X.");
}
