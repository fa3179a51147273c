//! What a DICOM file says of its image, study and patient: what objects that belong to the same study have to repeat.

use super::shown::Shown;
use crate::text::brief;
use dicom_core::chrono::NaiveDate;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The identity of a radiograph, or why it has none. A message says what to do.
pub(crate) type Source = Result<Box<Identity>, String>;

/// An attribute that is kept: its tag, its name in messages, and which values it may have.
struct Attribute(Tag, &'static str, Kind);

/// Which values an attribute may have (DICOM PS3.5, 6.2).
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A UID, which has to be there.
    Uid,
    /// A person's name: three ways of writing it, each of at most 64 characters.
    Name,
    /// A text of at most 64 characters.
    Long,
    /// A text of at most 16 characters.
    Short,
    Date,
    Time,
    /// An offset from UTC, `+HHMM` or `-HHMM`.
    Zone,
    /// M, F or O.
    Sex,
    /// A term in capital letters.
    Term,
}

/// All that is kept of a file's header: the modules Patient and General Study, references to the image, and times. Nothing else of the
/// file gets into an object that is written, so no private attribute and no free text.
const ATTRIBUTES: [Attribute; 22] = [
    Attribute(tags::SOP_CLASS_UID, "SOP Class UID", Kind::Uid),
    Attribute(tags::SOP_INSTANCE_UID, "SOP Instance UID", Kind::Uid),
    Attribute(tags::STUDY_INSTANCE_UID, "Study Instance UID", Kind::Uid),
    Attribute(tags::SERIES_INSTANCE_UID, "Series Instance UID", Kind::Uid),
    Attribute(tags::PATIENT_NAME, "Patient's Name", Kind::Name),
    Attribute(tags::PATIENT_ID, "Patient ID", Kind::Long),
    Attribute(tags::ISSUER_OF_PATIENT_ID, "Issuer of Patient ID", Kind::Long),
    Attribute(tags::PATIENT_BIRTH_DATE, "Patient's Birth Date", Kind::Date),
    Attribute(tags::PATIENT_SEX, "Patient's Sex", Kind::Sex),
    Attribute(tags::STUDY_DATE, "Study Date", Kind::Date),
    Attribute(tags::STUDY_TIME, "Study Time", Kind::Time),
    Attribute(tags::STUDY_ID, "Study ID", Kind::Short),
    Attribute(tags::ACCESSION_NUMBER, "Accession Number", Kind::Short),
    Attribute(tags::REFERRING_PHYSICIAN_NAME, "Referring Physician's Name", Kind::Name),
    Attribute(tags::TIMEZONE_OFFSET_FROM_UTC, "Timezone Offset From UTC", Kind::Zone),
    Attribute(tags::MODALITY, "Modality", Kind::Term),
    Attribute(tags::CONTENT_DATE, "Content Date", Kind::Date),
    Attribute(tags::CONTENT_TIME, "Content Time", Kind::Time),
    Attribute(tags::ACQUISITION_DATE, "Acquisition Date", Kind::Date),
    Attribute(tags::ACQUISITION_TIME, "Acquisition Time", Kind::Time),
    Attribute(tags::SERIES_DATE, "Series Date", Kind::Date),
    Attribute(tags::SERIES_TIME, "Series Time", Kind::Time),
];

/// Dates with their times, in the order in which they say when the content was made.
const TIMES: [[Tag; 2]; 4] = [
    [tags::CONTENT_DATE, tags::CONTENT_TIME],
    [tags::ACQUISITION_DATE, tags::ACQUISITION_TIME],
    [tags::SERIES_DATE, tags::SERIES_TIME],
    [tags::STUDY_DATE, tags::STUDY_TIME],
];

impl Kind {
    /// Whether a value that is not valid is left out. UIDs, names and numbers are copied as they are or not at all, because a changed
    /// one could be another patient's.
    fn may_be_dropped(self) -> bool {
        !matches!(self, Self::Uid | Self::Name | Self::Long | Self::Short)
    }

    /// Checks a value that is not empty.
    fn check(self, value: &str) -> Result<(), String> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let valid = match self {
            Self::Uid => {
                let is_part = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
                // The first number of a UID is 0, 1 or 2 (ISO/IEC 8824).
                value.len() <= 64 && value.split('.').all(is_part) && value.as_bytes().get(1) == Some(&b'.') && value < "3"
            }
            Self::Name => {
                value.split('=').try_for_each(|way| is_text(way, 64))?;
                value.split('=').count() <= 3 && value.split('=').all(|way| way.split('^').count() <= 5)
            }
            Self::Long => is_text(value, 64).map(|()| true)?,
            Self::Short => is_text(value, 16).map(|()| true)?,
            Self::Date => is_date(value),
            Self::Time => is_time(value),
            Self::Zone => {
                let number = value.strip_prefix(['+', '-']).unwrap_or_default();
                // PS3.3, C.12.1.1.8: from -1200 to +1400, and UTC is +0000.
                let most = if value.starts_with('+') { "1400" } else { "1200" };
                number.len() == 4 && digits(number) && number <= most && &number[2..] < "60" && value != "-0000"
            }
            Self::Sex => matches!(value, "M" | "F" | "O"),
            Self::Term => {
                let is_allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b' ';
                value.len() <= 16 && value.bytes().all(is_allowed)
            }
        };
        if valid { Ok(()) } else { Err("is not valid".into()) }
    }
}

fn is_text(value: &str, most: usize) -> Result<(), String> {
    let characters = value.chars().count();
    if characters > most {
        return Err(format!("has {characters} characters, and DICOM allows {most}"));
    }
    // A backslash separates values, and these attributes have one.
    let is_allowed = |c: char| !c.is_control() && c != '\\';
    if value.chars().all(is_allowed) { Ok(()) } else { Err("has several values or control characters".into()) }
}

/// Whether this is a day of the calendar as `YYYYMMDD`.
pub(crate) fn is_date(value: &str) -> bool {
    let all_digits = value.len() == 8 && value.bytes().all(|b| b.is_ascii_digit());
    all_digits && !value.starts_with("0000") && NaiveDate::parse_from_str(value, "%Y%m%d").is_ok()
}

/// Whether this is a time as `HH`, `HHMM`, `HHMMSS` or `HHMMSS.FFFFFF`. Leap seconds are none, because validators refuse them.
pub(crate) fn is_time(value: &str) -> bool {
    let (whole, fraction) = value.split_once('.').map_or((value, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fraction_is_valid = fraction.is_none_or(|f| whole.len() == 6 && (1..=6).contains(&f.len()) && digits(f));
    let parts = [("24", 0), ("60", 2), ("60", 4)];
    let valid = |(limit, at): (&str, usize)| whole.get(at..at + 2).is_none_or(|part| part < limit);
    fraction_is_valid && matches!(whole.len(), 2 | 4 | 6) && digits(whole) && parts.into_iter().all(valid)
}

/// What a DICOM file says of its image, study and patient. Every value is valid, and none is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Values by tag, as `GGGGEEEE`.
    #[serde(flatten)]
    values: BTreeMap<String, String>,
    /// See [`Identity::shown`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<Box<Shown>>,
}

impl Identity {
    /// The identity that `value` reads attribute by attribute; it returns `None` for what is absent, and an error if a value cannot be
    /// read.
    pub fn read(mut value: impl FnMut(Tag) -> Result<Option<String>, Problem>) -> Source {
        let mut values = BTreeMap::new();
        for Attribute(tag, name, kind) in &ATTRIBUTES {
            let read = match value(*tag) {
                Err(_) if kind.may_be_dropped() => None,
                read => read.map_err(|problem| invalid(name, *tag, &problem))?,
            };
            match read.filter(|value| !value.is_empty()) {
                None if *kind == Kind::Uid => return Err(format!("its header has no {name} {tag}; correct the header")),
                None => {}
                Some(value) => match kind.check(&value) {
                    Ok(()) => _ = values.insert(key(*tag), value),
                    Err(_) if kind.may_be_dropped() => {}
                    Err(what) => return Err(invalid(name, *tag, &Problem::wrong(what))),
                },
            }
        }
        // A time of an unknown day says nothing, and could be taken for that of another.
        for [date, time] in TIMES {
            if !values.contains_key(&key(date)) {
                values.remove(&key(time));
            }
        }
        Ok(Box::new(Self { values, shown: None }))
    }

    /// Whether this could have been read from a file.
    pub fn is_valid(&self) -> bool {
        let read = Self::read(|tag| Ok(self.values.get(&key(tag)).cloned()));
        read.is_ok_and(|read| read.values == self.values) && self.shown.as_ref().is_none_or(|shown| shown.is_valid())
    }

    /// This with how the image is displayed.
    pub fn shown_as(self, shown: Shown) -> Self {
        Self { shown: Some(Box::new(shown)).filter(|shown| shown.is_valid()), ..self }
    }

    /// How the image is displayed; `None` in a study that an earlier version saved, and if a transform overflows.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_deref()
    }

    /// The value of an attribute; empty if the file has none.
    pub fn get(&self, tag: Tag) -> &str {
        self.values.get(&key(tag)).map_or("", String::as_str)
    }

    /// When the image's content was made: date and time, from the first of Content, Acquisition, Series and Study Date that the file has
    /// together with a time.
    pub fn time(&self) -> Option<[&str; 2]> {
        TIMES.into_iter().map(|pair| pair.map(|tag| self.get(tag))).find(|[date, time]| !date.is_empty() && !time.is_empty())
    }
}

/// The value representation with which an attribute of [`Identity`] is written.
pub(crate) fn representation(tag: Tag) -> VR {
    let kind = ATTRIBUTES.iter().find(|Attribute(known, ..)| *known == tag).map(|Attribute(_, _, kind)| kind);
    match kind {
        Some(Kind::Uid) => VR::UI,
        Some(Kind::Name) => VR::PN,
        Some(Kind::Long) => VR::LO,
        Some(Kind::Date) => VR::DA,
        Some(Kind::Time) => VR::TM,
        Some(Kind::Sex | Kind::Term) => VR::CS,
        Some(Kind::Short | Kind::Zone) | None => VR::SH,
    }
}

fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// Why a value cannot be used, and what to do. `what` follows the name of the attribute.
pub(crate) struct Problem {
    pub what: String,
    pub advice: &'static str,
}

impl Problem {
    /// A problem of the header.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self { what: what.into(), advice: "correct the header" }
    }
}

fn invalid(name: &str, tag: Tag, Problem { what, advice }: &Problem) -> String {
    brief(format!("its {name} {tag} {what}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(Tag, &str)]) -> Source {
        let uids = [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID];
        Identity::read(|tag| {
            let named = values.iter().rfind(|(known, _)| *known == tag).map(|(_, value)| value.to_string());
            Ok(named.or_else(|| uids.contains(&tag).then(|| "1.2.840.0.7".to_string())))
        })
    }

    const DAY: (Tag, &str) = (tags::STUDY_DATE, "20261126");

    #[test]
    fn values_that_identify_are_kept_or_refused_and_others_dropped() {
        let kept =
            read(&[(tags::PATIENT_NAME, "Müller^Jörg=山田"), (tags::PATIENT_SEX, "F"), DAY, (tags::STUDY_TIME, "235959.5")]).unwrap();
        let values = [tags::PATIENT_NAME, tags::PATIENT_SEX, tags::STUDY_TIME, tags::PATIENT_ID].map(|tag| kept.get(tag));
        assert_eq!(values, ["Müller^Jörg=山田", "F", "235959.5", ""]);
        assert!(kept.is_valid());
        let dropped = [
            (tags::PATIENT_SEX, "male"),
            (tags::PATIENT_BIRTH_DATE, "1940.03.05"),
            (tags::PATIENT_BIRTH_DATE, "19401305"),
            (tags::PATIENT_BIRTH_DATE, "20260229"),
            (tags::PATIENT_BIRTH_DATE, "00000101"),
            (tags::STUDY_TIME, "235960"),
            (tags::STUDY_TIME, "12:30:00"),
            (tags::STUDY_TIME, "2460"),
            (tags::STUDY_TIME, "12é0"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "+1é0"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "0100"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "-0000"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "-1230"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "+1401"),
            (tags::MODALITY, "digital"),
        ];
        for (tag, value) in dropped {
            assert_eq!(read(&[DAY, (tag, value)]).unwrap().get(tag), "", "{value}");
        }
        for zone in ["+0000", "-1200", "+1400", "-0330"] {
            assert_eq!(read(&[(tags::TIMEZONE_OFFSET_FROM_UTC, zone)]).unwrap().get(tags::TIMEZONE_OFFSET_FROM_UTC), zone);
        }
        let undated = read(&[(tags::STUDY_DATE, "20260230"), (tags::STUDY_TIME, "1200")]).unwrap();
        assert_eq!([tags::STUDY_DATE, tags::STUDY_TIME].map(|tag| undated.get(tag)), ["", ""]);
        let (long, path) = ("x".repeat(65), "1.".repeat(40) + "1");
        let refused = [
            (tags::PATIENT_NAME, long.as_str(), "65 characters"),
            (tags::PATIENT_NAME, "a=b=c=d", "is not valid"),
            (tags::PATIENT_NAME, "a^b^c^d^e^f", "is not valid"),
            (tags::PATIENT_ID, r"1\2", "several values"),
            (tags::PATIENT_ID, "1\u{1b}2", "control characters"),
            (tags::ACCESSION_NUMBER, "12345678901234567", "17 characters"),
            (tags::STUDY_INSTANCE_UID, "", "no Study Instance UID"),
            (tags::STUDY_INSTANCE_UID, "1..2", "is not valid"),
            (tags::STUDY_INSTANCE_UID, "9.9.9", "is not valid"),
            (tags::STUDY_INSTANCE_UID, "1.02", "is not valid"),
            (tags::STUDY_INSTANCE_UID, path.as_str(), "is not valid"),
            (tags::SOP_INSTANCE_UID, "1.2x", "SOP Instance UID (0008,0018) is not valid; correct the header"),
        ];
        for (tag, value, part) in refused {
            let message = read(&[(tag, value)]).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn an_identity_that_no_file_gives_is_not_valid() {
        let whole = serde_json::to_value(read(&[(tags::PATIENT_ID, "7")]).unwrap()).unwrap();
        let valid = |value: &serde_json::Value| serde_json::from_value::<Identity>(value.clone()).unwrap().is_valid();
        assert!(valid(&whole));
        for (key, value) in [("00100020", "1\n2"), ("00100030", "today"), ("00104000", "free text"), ("0020000D", "x")] {
            let mut changed = whole.clone();
            changed[key] = value.into();
            assert!(!valid(&changed), "{key}");
        }
        let window = serde_json::json!({ "window": { "function": "linear", "center": 0.0, "width": 0.5 } });
        let modality = serde_json::json!({ "linear": { "slope": 1.0, "intercept": 0.0 } });
        let mut shown = serde_json::json!({ "modality": modality, "voi": window, "inverted": false, "aspect": [1, 1], "lossy": false });
        for (width, expected) in [(0.5, false), (1.5, true)] {
            shown["voi"]["window"]["width"] = width.into();
            let mut changed = whole.clone();
            changed["shown"] = shown.clone();
            assert_eq!(valid(&changed), expected);
        }
    }

    #[test]
    fn the_time_is_that_of_the_content() {
        let times = [(tags::STUDY_DATE, "20260101"), (tags::STUDY_TIME, "12"), (tags::CONTENT_DATE, "20260102")];
        assert_eq!(read(&times).unwrap().time(), Some(["20260101", "12"]));
        let whole = [&times[..], &[(tags::CONTENT_TIME, "0730")]].concat();
        assert_eq!(read(&whole).unwrap().time(), Some(["20260102", "0730"]));
        assert_eq!(read(&[]).unwrap().time(), None);
    }
}
