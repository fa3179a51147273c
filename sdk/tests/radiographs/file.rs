//! A builder of DICOM files, and pictures for tests.

use anatomix::Radiograph;
use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::{DynamicImage, GrayImage, ImageFormat};
use std::io::Cursor;

pub const NAME: &str = "folder/chest.dcm";
/// Explicit VR Big Endian, which is retired, but in which archived files exist.
pub const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub const COLUMNS: u16 = 40;
pub const ROWS: u16 = 32;
pub const PIXELS: usize = COLUMNS as usize * ROWS as usize;

/// The pixels of `ramp`, compressed by Pillow without loss in 16 bits.
pub const JPEG_2000: &[u8] = include_bytes!("ramp.j2k");

pub type Element = DataElement<InMemDicomObject>;

/// A builder that starts with a valid 12-bit radiograph.
pub struct File {
    pub object: InMemDicomObject,
    pub syntax: &'static str,
    /// The SOP class in the file meta information.
    pub class: &'static str,
}

pub fn ramp() -> Vec<u16> {
    (0..PIXELS).map(|i| (i * 3) as u16).collect()
}

pub fn words(tag: Tag, vr: VR, values: &[u16]) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::U16(values.into()))
}

pub fn text(tag: Tag, vr: VR, value: &str) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

pub fn table(tag: Tag, descriptor: &[u16], data: &[u16]) -> Element {
    tables(tag, &[(descriptor, data)])
}

/// A sequence of look-up tables, each with its descriptor and data.
pub fn tables(tag: Tag, tables: &[(&[u16], &[u16])]) -> Element {
    let item = |(descriptor, data): &(&[u16], &[u16])| {
        InMemDicomObject::from_element_iter([words(tags::LUT_DESCRIPTOR, VR::US, descriptor), words(tags::LUT_DATA, VR::OW, data)])
    };
    DataElement::new(tag, VR::SQ, DataSetSequence::from(tables.iter().map(item).collect::<Vec<_>>()))
}

impl File {
    pub fn new() -> Self {
        let object = InMemDicomObject::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"),
            text(tags::MODALITY, VR::CS, "CR"),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            words(tags::SAMPLES_PER_PIXEL, VR::US, &[1]),
            words(tags::ROWS, VR::US, &[ROWS]),
            words(tags::COLUMNS, VR::US, &[COLUMNS]),
            words(tags::BITS_ALLOCATED, VR::US, &[16]),
            words(tags::BITS_STORED, VR::US, &[12]),
            words(tags::HIGH_BIT, VR::US, &[11]),
            words(tags::PIXEL_REPRESENTATION, VR::US, &[0]),
            words(tags::PIXEL_DATA, VR::OW, &ramp()),
        ]);
        Self { object, syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN, class: uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE }
    }

    pub fn put(mut self, element: Element) -> Self {
        self.object.put(element);
        self
    }

    pub fn word(self, tag: Tag, value: u16) -> Self {
        self.put(words(tag, VR::US, &[value]))
    }

    pub fn text(self, tag: Tag, vr: VR, value: &str) -> Self {
        self.put(text(tag, vr, value))
    }

    pub fn without(mut self, tag: Tag) -> Self {
        self.object.remove_element(tag);
        self
    }

    pub fn pixels(self, values: &[u16]) -> Self {
        self.put(words(tags::PIXEL_DATA, VR::OW, values))
    }

    pub fn bits(self, allocated: u16, stored: u16, high: u16, signed: bool) -> Self {
        self.word(tags::BITS_ALLOCATED, allocated)
            .word(tags::BITS_STORED, stored)
            .word(tags::HIGH_BIT, high)
            .word(tags::PIXEL_REPRESENTATION, signed.into())
    }

    pub fn window(self, center: &str, width: &str, function: &str) -> Self {
        let file = self.text(tags::WINDOW_CENTER, VR::DS, center).text(tags::WINDOW_WIDTH, VR::DS, width);
        if function.is_empty() { file } else { file.text(tags::VOILUT_FUNCTION, VR::CS, function) }
    }

    pub fn packed(self, syntax: &'static str, fragments: Vec<Vec<u8>>) -> Self {
        self.pieces(syntax, vec![], fragments)
    }

    /// With an offset table.
    pub fn pieces(mut self, syntax: &'static str, offsets: Vec<u32>, fragments: Vec<Vec<u8>>) -> Self {
        self.syntax = syntax;
        self.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new(offsets, fragments)))
    }

    pub fn bytes(self) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(self.syntax)
            .media_storage_sop_class_uid(self.class)
            .media_storage_sop_instance_uid("2.25.1");
        let mut bytes = Vec::new();
        self.object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }

    pub fn open(self) -> Radiograph {
        Radiograph::from_bytes(&self.bytes(), NAME).unwrap()
    }

    /// The message of the error, which must name the file.
    pub fn refused(self) -> String {
        refused(&self.bytes())
    }
}

pub fn refused(bytes: &[u8]) -> String {
    let message = Radiograph::from_bytes(bytes, NAME).unwrap_err().to_string();
    assert!(message.contains(NAME), "{message}");
    assert!(message.contains(';'), "says what to do: {message}");
    message
}

pub fn check(radiograph: &Radiograph, expected: impl Fn(usize) -> f64) {
    assert_eq!((radiograph.width(), radiograph.height()), (COLUMNS.into(), ROWS.into()));
    for (i, &found) in radiograph.intensities().unwrap().iter().enumerate() {
        let expected = expected(i);
        assert!((f64::from(found) - expected).abs() < 1e-6, "pixel {i}: {found}, not {expected}");
    }
}

pub const LAST: f64 = ((PIXELS - 1) * 3) as f64;
/// Encodes 16-bit values as RLE Lossless, with literal runs only.
pub fn run_lengths(values: &[u16]) -> Vec<u8> {
    let plane = |shift: u32| {
        let bytes: Vec<u8> = values.iter().map(|v| (v >> shift) as u8).collect();
        bytes.chunks(128).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect::<Vec<u8>>()
    };
    let (high, low) = (plane(8), plane(0));
    let mut header = [0u32; 16];
    header[..3].copy_from_slice(&[2, 64, 64 + high.len() as u32]);
    [header.iter().flat_map(|v| v.to_le_bytes()).collect(), high, low].concat()
}

pub fn jpeg() -> (GrayImage, Vec<u8>) {
    let picture = GrayImage::from_fn(COLUMNS.into(), ROWS.into(), |x, y| image::Luma([(x * 4 + y * 2) as u8]));
    (picture.clone(), encoded(&picture.into(), ImageFormat::Jpeg))
}

pub fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}
