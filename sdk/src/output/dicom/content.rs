//! The content tree of a structured report (DICOM PS3.3, C.17.3): items with a concept, a value and a relationship to the item above.

use super::element::{corners, decimal_string, floats, item, lines, sequence, text};
use crate::geometry::PixelBox;
use crate::output::codes::Code;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

/// How an item is related to the item above it (PS3.3, C.17.3.2.4).
#[derive(Clone, Copy)]
pub(super) enum Relationship {
    Contains,
    HasObservationContext,
    HasAcquisitionContext,
    HasConceptModifier,
    HasProperties,
    SelectedFrom,
}

/// An image that an item refers to.
#[derive(Clone, Copy)]
pub(super) struct ImageReference<'a> {
    pub class_uid: &'a str,
    pub instance_uid: &'a str,
}

impl ImageReference<'_> {
    /// The item of a reference sequence.
    pub fn item(self) -> InMemDicomObject {
        item([
            text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, self.class_uid),
            text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, self.instance_uid),
        ])
    }
}

/// The value of an item.
pub(super) enum Value<'a> {
    /// Items below a heading, by a template of PS3.16 if it is given.
    Container {
        template: Option<&'static str>,
    },
    Text(String),
    Code(Code),
    /// A number with its unit. One that is not finite is written without a value.
    Number(f32, Code),
    Uid(String),
    /// A closed polygon with the corners of a box, in pixels (PS3.3, C.18.6): the origin is the corner of the first pixel.
    Box(PixelBox),
    Image(ImageReference<'a>),
}

/// An item of the tree, with the items below it.
pub(super) struct Item<'a> {
    relation: Relationship,
    concept: Option<Code>,
    value: Value<'a>,
    children: Vec<Item<'a>>,
}

impl Relationship {
    fn term(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::HasObservationContext => "HAS OBS CONTEXT",
            Self::HasAcquisitionContext => "HAS ACQ CONTEXT",
            Self::HasConceptModifier => "HAS CONCEPT MOD",
            Self::HasProperties => "HAS PROPERTIES",
            Self::SelectedFrom => "SELECTED FROM",
        }
    }

    /// An item with this relation.
    pub fn item(self, concept: impl Into<Option<Code>>, value: Value) -> Item {
        Item { relation: self, concept: concept.into(), value, children: Vec::new() }
    }

    /// A text. Control characters other than tabulators and ends of lines are left out.
    pub fn text(self, concept: Code, value: &str) -> Item<'static> {
        self.item(concept, Value::Text(lines(value)))
    }

    /// A coded value.
    pub fn code(self, concept: Code, value: Code) -> Item<'static> {
        self.item(concept, Value::Code(value))
    }
}

impl<'a> Item<'a> {
    /// A heading.
    pub fn container(concept: Code, template: Option<&'static str>) -> Self {
        Relationship::Contains.item(concept, Value::Container { template })
    }

    /// With these items below it, after those that it has. A text without characters is not allowed in a report, and is left out.
    #[must_use]
    pub fn with(mut self, children: impl IntoIterator<Item = Item<'a>>) -> Self {
        let is_empty = |item: &Item| matches!(&item.value, Value::Text(text) if text.trim().is_empty());
        self.children.extend(children.into_iter().filter(|child| !is_empty(child)));
        self
    }

    /// The elements of the item at the root of the tree, which is related to nothing.
    pub fn root(&self) -> InMemDicomObject {
        let mut object = InMemDicomObject::new_empty();
        let (value_type, elements) = match &self.value {
            Value::Container { template } => {
                let mut elements = vec![text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE")];
                elements.extend(template.map(|template| {
                    let named = [text(tags::MAPPING_RESOURCE, VR::CS, "DCMR"), text(tags::TEMPLATE_IDENTIFIER, VR::CS, template)];
                    sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![item(named)])
                }));
                ("CONTAINER", elements)
            }
            Value::Text(value) => ("TEXT", vec![text(tags::TEXT_VALUE, VR::UT, value)]),
            Value::Code(value) => ("CODE", vec![sequence(tags::CONCEPT_CODE_SEQUENCE, vec![code(*value)])]),
            Value::Number(value, unit) => {
                let measured = value.is_finite().then(|| {
                    let unit = sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code(*unit)]);
                    item([text(tags::NUMERIC_VALUE, VR::DS, &decimal_string(*value)), unit])
                });
                ("NUM", vec![sequence(tags::MEASURED_VALUE_SEQUENCE, measured.into_iter().collect())])
            }
            Value::Uid(value) => ("UIDREF", vec![text(tags::UID, VR::UI, value)]),
            Value::Box(bounds) => {
                ("SCOORD", vec![text(tags::GRAPHIC_TYPE, VR::CS, "POLYLINE"), floats(tags::GRAPHIC_DATA, &corners(bounds))])
            }
            Value::Image(image) => ("IMAGE", vec![sequence(tags::REFERENCED_SOP_SEQUENCE, vec![image.item()])]),
        };
        object.put(text(tags::VALUE_TYPE, VR::CS, value_type));
        elements.into_iter().for_each(|element| _ = object.put(element));
        if let Some(concept) = self.concept {
            object.put(sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code(concept)]));
        }
        if !self.children.is_empty() {
            object.put(sequence(tags::CONTENT_SEQUENCE, self.children.iter().map(Item::related).collect()));
        }
        object
    }

    fn related(&self) -> InMemDicomObject {
        let mut object = self.root();
        object.put(text(tags::RELATIONSHIP_TYPE, VR::CS, self.relation.term()));
        object
    }
}

/// The item of a code sequence (PS3.3, 8.8).
pub(super) fn code(code: Code) -> InMemDicomObject {
    item([
        text(tags::CODE_VALUE, VR::SH, code.value),
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, code.scheme),
        text(tags::CODE_MEANING, VR::LO, code.meaning),
    ])
}
