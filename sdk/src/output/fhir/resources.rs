//! The resources that the report refers to: patient, imaging study, device; and the bundle that holds them.

use super::value::{coding, pruned};
use crate::output::codes;
use crate::output::document::{PRODUCT, device_uid};
use crate::output::uid;
use crate::provenance::Provenance;
use crate::radiograph::Identity;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

/// The resources of a bundle.
#[derive(Default)]
pub(super) struct Resources {
    entries: Vec<Value>,
}

/// What every observation refers to.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub patient: &'a Value,
    pub images: &'a Value,
    pub device: &'a Value,
    pub effective: &'a str,
}

impl Resources {
    /// Adds a resource, and returns a reference to it. Its URL follows from its content and its place, so that equal bundles have equal
    /// URLs, and no two resources the same.
    pub fn add(&mut self, resource: Value) -> Value {
        let resource = pruned(resource).unwrap_or_default();
        let place = self.entries.len() as u64;
        let url = format!("urn:uuid:{}", uid::uuid(&[b"fhir", &place.to_le_bytes(), resource.to_string().as_bytes()]));
        self.entries.push(json!({ "fullUrl": url, "resource": resource }));
        json!({ "reference": url })
    }

    /// The JSON of the bundle. The resource that was added last, the report, comes first.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.entries.rotate_right(1);
        let entries = Value::Array(self.entries);
        let name = uid::uuid(&[b"fhir bundle", entries.to_string().as_bytes()]);
        let bundle = json!({
            "resourceType": "Bundle",
            "identifier": { "system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{name}") },
            "type": "collection",
            "entry": entries,
        });
        format!("{bundle:#}\n").into_bytes()
    }
}

pub(super) fn patient(identity: &Identity) -> Value {
    let [id, issuer] = [tags::PATIENT_ID, tags::ISSUER_OF_PATIENT_ID].map(|tag| identity.get(tag));
    let identifier = if id.is_empty() { Value::Null } else { json!({ "value": id, "assigner": { "display": issuer } }) };
    let gender = match identity.get(tags::PATIENT_SEX) {
        "M" => "male",
        "F" => "female",
        "O" => "other",
        _ => "",
    };
    json!({
        "resourceType": "Patient",
        "identifier": [identifier],
        "name": names(identity.get(tags::PATIENT_NAME)),
        "gender": gender,
        "birthDate": date(identity.get(tags::PATIENT_BIRTH_DATE)),
    })
}

/// The ways in which DICOM writes a name (PS3.5, 6.2.1): alphabetic, ideographic, phonetic.
fn names(name: &str) -> Vec<Value> {
    let ways = name.split('=').zip(["ABC", "IDE", "SYL"]).filter(|(way, _)| !way.is_empty());
    let named = ways.map(|(way, representation)| {
        let mut parts = way.split('^').map(str::trim);
        let mut part = || parts.next().unwrap_or_default();
        let [family, given, middle, prefix, suffix] = [part(), part(), part(), part(), part()];
        let whole = [prefix, given, middle, family, suffix].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        json!({
            "extension": [{
                "url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": representation,
            }],
            "text": whole,
            "family": family,
            "given": [given, middle],
            "prefix": [prefix],
            "suffix": [suffix],
        })
    });
    named.collect()
}

pub(super) fn imaging_study(identity: &Identity, patient: &Value) -> Value {
    let oid = |tag| format!("urn:oid:{}", identity.get(tag));
    let modality = coding(codes::modality(identity.get(tags::MODALITY)));
    let accession = match identity.get(tags::ACCESSION_NUMBER) {
        "" => Value::Null,
        number => json!({
            "type": { "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN", "display": "Accession ID",
            }] },
            "value": number,
        }),
    };
    let referrer = identity.get(tags::REFERRING_PHYSICIAN_NAME).split('=').next().unwrap_or_default().replace('^', " ");
    json!({
        "resourceType": "ImagingStudy",
        "identifier": [{ "system": "urn:dicom:uid", "value": oid(tags::STUDY_INSTANCE_UID) }, accession],
        "status": "available",
        "modality": [modality],
        "subject": patient,
        "started": date_time(identity, identity.get(tags::STUDY_DATE), identity.get(tags::STUDY_TIME)),
        "referrer": { "display": referrer },
        "series": [{
            "uid": identity.get(tags::SERIES_INSTANCE_UID),
            "modality": modality,
            "instance": [{
                "uid": identity.get(tags::SOP_INSTANCE_UID),
                "sopClass": { "system": "urn:ietf:rfc:3986", "code": oid(tags::SOP_CLASS_UID) },
            }],
        }],
    })
}

pub(super) fn device(provenance: &Provenance) -> Value {
    let Provenance { sdk, bundle, bundle_sha256, provider, precision, onnx_runtime, intended_use, scores, .. } = provenance;
    let version = |what: &str, value: &str| json!({ "type": { "text": what }, "value": value });
    json!({
        "resourceType": "Device",
        "identifier": [{ "system": "urn:ietf:rfc:3986", "value": format!("urn:oid:{}", device_uid(provenance)) }],
        "manufacturer": PRODUCT,
        "deviceName": [{ "name": PRODUCT, "type": "model-name" }],
        "serialNumber": bundle_sha256,
        "version": [
            version("software", sdk),
            version("bundle", bundle),
            version("precision", precision),
            version("provider", provider),
            version("ONNX Runtime", onnx_runtime),
        ],
        "note": [{ "text": format!("Intended use: {intended_use}. Scores are {scores}.") }],
    })
}

/// A date of DICOM, `YYYYMMDD`, as `YYYY-MM-DD`; empty if there is none.
fn date(date: &str) -> String {
    let parts = [date.get(..4), date.get(4..6), date.get(6..8)];
    parts.into_iter().collect::<Option<Vec<_>>>().map_or_else(String::new, |parts| parts.join("-"))
}

/// A date with its time. FHIR has no time without an offset from UTC, so without one in the header it is the date alone.
pub(super) fn date_time(identity: &Identity, day: &str, time: &str) -> String {
    let (day, offset) = (date(day), identity.get(tags::TIMEZONE_OFFSET_FROM_UTC));
    let (whole, fraction) = time.split_once('.').map_or((time, ""), |(whole, fraction)| (whole, fraction));
    let part = |at: usize| whole.get(at..at + 2).unwrap_or("00");
    match (offset.get(..3), offset.get(3..)) {
        (Some(hours), Some(minutes)) if !day.is_empty() && !time.is_empty() => {
            let point = if fraction.is_empty() { "" } else { "." };
            format!("{day}T{}:{}:{}{point}{fraction}{hours}:{minutes}", part(0), part(2), part(4))
        }
        _ => day,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::Tag;

    fn identity(values: &[(Tag, &str)]) -> Identity {
        let uids = [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID];
        let read = Identity::read(|tag| {
            let given = values.iter().find(|(known, _)| *known == tag).map(|(_, value)| value.to_string());
            Ok(given.or_else(|| uids.contains(&tag).then(|| "1.2.3".into())))
        });
        *read.unwrap()
    }

    #[test]
    fn times_have_an_offset_or_are_days() {
        let local = identity(&[]);
        assert_eq!(date_time(&local, "20260102", "0304"), "2026-01-02");
        let zoned = identity(&[(tags::TIMEZONE_OFFSET_FROM_UTC, "-0330")]);
        let written = ["07", "0708", "070809", "070809.5", ""].map(|time| date_time(&zoned, "20260102", time));
        let expected = ["07:00:00-03:30", "07:08:00-03:30", "07:08:09-03:30", "07:08:09.5-03:30"].map(|time| format!("2026-01-02T{time}"));
        assert_eq!((&written[..4], written[4].as_str()), (&expected[..], "2026-01-02"));
        assert_eq!(date_time(&zoned, "", "07"), "");
    }

    #[test]
    fn a_name_has_its_parts_in_each_way_of_writing() {
        let found = names("Yamada^Tarou^^Dr=山田^太郎=やまだ^たろう");
        let found: Vec<_> = found.into_iter().map(|name| pruned(name).unwrap()).collect();
        assert_eq!(found[0]["family"], "Yamada");
        assert_eq!(
            (&found[0]["given"], &found[0]["prefix"], &found[0]["text"]),
            (&json!(["Tarou"]), &json!(["Dr"]), &json!("Dr Tarou Yamada"))
        );
        assert_eq!((&found[1]["family"], &found[1]["extension"][0]["valueCode"]), (&json!("山田"), &json!("IDE")));
        assert_eq!(found[2]["extension"][0]["valueCode"], "SYL");
        assert!(names("").is_empty());
    }
}
