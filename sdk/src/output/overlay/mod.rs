//! Overlays: pictures of a radiograph with labelled boxes.
//!
//! The radiograph is in the middle. Labels are in the margins, with lines to their boxes, so that no label covers anatomy or another
//! label. The colour of a box shows the patient's side.

mod canvas;
mod layout;
mod picture;
mod subject;

pub use canvas::FONT;

use super::{OutputError, write_private};
use crate::Radiograph;
use crate::anatomy::Side;
use crate::cause::source;
use crate::geometry::PixelBox;
use crate::provenance::Provenance;
use crate::radiograph::RadiographError;
use canvas::{Area, Canvas, Paint};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use layout::Wish;
use std::io::Cursor;
use std::path::Path;

/// Longest side of the radiograph on the canvas, in pixels. All sizes below are in pixels of the canvas, too.
const MAX_STAGE: f32 = 1100.0;
/// Smallest width and height of the area around the radiograph, so that labels have room beside a narrow radiograph.
const MIN_STAGE: [f32; 2] = [480.0, 640.0];
const MARGIN: f32 = 256.0;
const HEADER: f32 = 64.0;
const FOOTER: f32 = 52.0;
const PADDING: f32 = 22.0;
const GAP: f32 = 12.0;

const BACKGROUND: [u8; 3] = [14, 17, 22];
const PLATE: [u8; 3] = [29, 35, 43];
const INK: [u8; 3] = [230, 235, 240];
const FAINT: [u8; 3] = [128, 138, 150];
const LEFT: [u8; 3] = [240, 165, 92];
const RIGHT: [u8; 3] = [92, 176, 234];
const MIDDLE: [u8; 3] = [190, 200, 208];
const FINDING: [u8; 3] = [255, 118, 117];

/// Height of the line above a margin's labels, which holds the letter R or L.
const HEADING: f32 = 46.0;
const NAME_SIZE: f32 = 20.0;
const NOTE_SIZE: f32 = 16.5;
/// Indent of a note relative to its label, with room for the dot before it.
const INDENT: f32 = 14.0;

/// A box with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// The box in pixels of the radiograph.
    pub bounds: PixelBox,
    /// The label, a few words.
    pub label: String,
    /// Finding, in smaller type below the label; may be empty.
    pub note: String,
    /// The patient's side, which sets the colour; `None` for a midline or unpaired structure.
    pub side: Option<Side>,
    /// Whether the box is drawn with emphasis, as one with a finding.
    pub emphasised: bool,
}

/// A radiograph with labelled boxes; [`Overlay::render`] draws it.
#[derive(Clone, Debug)]
pub struct Overlay {
    picture: GrayImage,
    /// SHA-256 of the radiograph, as in the provenance of its study; empty if the boxes are of another one.
    input_sha256: String,
    /// SHA-256 of the bundle that the boxes come from, if that is known.
    bundle_sha256: Option<String>,
    /// Pixels of the canvas per pixel of the radiograph.
    scale: f32,
    title: String,
    subtitle: String,
    boxes: Vec<LabelledBox>,
}

/// A box on the canvas.
struct Placed<'a> {
    subject: &'a LabelledBox,
    area: Area,
}

/// The lines of a label whose position is not yet known.
struct Label {
    /// Index of the label's box.
    box_index: usize,
    name: Vec<String>,
    note: Vec<String>,
}

impl Label {
    fn height(&self) -> f32 {
        14.0 + self.name.len() as f32 * (NAME_SIZE + 2.0) + self.note.len() as f32 * (NOTE_SIZE + 2.0)
    }
}

fn color(side: Option<Side>) -> [u8; 3] {
    match side {
        Some(Side::Left) => LEFT,
        Some(Side::Right) => RIGHT,
        None => MIDDLE,
    }
}

impl Overlay {
    /// Makes an overlay of these boxes, with the radiograph's file name as its title. This takes a byte for each pixel of the radiograph.
    ///
    /// # Errors
    /// [`RadiographError::Memory`].
    pub fn new(radiograph: &Radiograph, boxes: Vec<LabelledBox>) -> Result<Self, RadiographError> {
        let (width, height) = (radiograph.width() as f32, radiograph.height() as f32);
        let scale = MAX_STAGE / width.max(height);
        let side = |pixels: f32| (pixels * scale).round().max(1.0) as u32;
        let path = Path::new(radiograph.name());
        Ok(Self {
            picture: picture::draw(radiograph, side(width), side(height))?,
            input_sha256: radiograph.sha256().into(),
            bundle_sha256: None,
            scale,
            title: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            subtitle: String::new(),
            boxes,
        })
    }

    /// Sets the text to the right of the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// This with the provenance of its boxes.
    fn with_provenance(mut self, provenance: &Provenance) -> Self {
        if self.input_sha256 != provenance.input_sha256 {
            self.input_sha256.clear();
        }
        self.bundle_sha256 = Some(provenance.bundle_sha256.clone());
        self
    }

    /// Whether radiograph and boxes are those of a study.
    pub(super) fn is_of(&self, provenance: &Provenance) -> bool {
        self.input_sha256 == provenance.input_sha256 && self.bundle_sha256.as_ref().is_none_or(|hash| *hash == provenance.bundle_sha256)
    }

    /// Draws the picture. Its longest side has 1,100 to 1,650 pixels.
    pub fn render(&self) -> RgbImage {
        let size = [self.picture.width() as f32, self.picture.height() as f32];
        let room = [size[0].max(MIN_STAGE[0]), size[1].max(MIN_STAGE[1])];
        let (width, height) = (room[0] + 2.0 * MARGIN, room[1] + HEADER + FOOTER);
        let stage = Area::new(MARGIN, HEADER, MARGIN + room[0], HEADER + room[1]);
        let corner = [(stage.x0 + (room[0] - size[0]) / 2.0).floor(), (stage.y0 + (room[1] - size[1]) / 2.0).floor()];

        let mut canvas = Canvas::new(width as u32, height as u32, BACKGROUND);
        for (x, y, pixel) in self.picture.enumerate_pixels() {
            // The radiograph is dimmed a little, so that lines and labels are the brightest pixels.
            let grey = (f32::from(pixel.0[0]) * 0.86) as u8;
            canvas.image.put_pixel(x + corner[0] as u32, y + corner[1] as u32, Rgb([grey; 3]));
        }
        let photo = Area::new(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]);
        let placed: Vec<Placed> = self.boxes.iter().filter_map(|subject| self.place(subject, photo)).collect();
        // Emphasised boxes are drawn last, above the others.
        for emphasised in [false, true] {
            for one in placed.iter().filter(|one| one.subject.emphasised == emphasised) {
                draw_box(&mut canvas, one);
            }
        }
        let sides = Sides::of(&placed, photo);
        sides.draw(&mut canvas, stage);
        let room = Area::new(stage.x0, stage.y0 + HEADING, stage.x1, stage.y1);
        for (margin, labels) in self.labels(&canvas, &placed, &sides, room) {
            draw_margin(&mut canvas, &placed, labels, margin, room);
        }
        self.draw_frame(&mut canvas, &placed);
        canvas.image
    }

    /// Draws the picture and writes it atomically as a PNG file.
    ///
    /// # Errors
    /// [`OutputError`], which names the path.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        write_private(path, &self.to_png()?)
    }

    /// Draws the picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`OutputError::Encode`], which is a defect.
    pub fn to_png(&self) -> Result<Vec<u8>, OutputError> {
        let mut bytes = Vec::new();
        let encoded = self.render().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png);
        encoded.map(|()| bytes).map_err(|e| OutputError::Encode { source: source(e) })
    }

    /// Places a box on the canvas, clamped to the radiograph and at least 3 pixels wide and high; `None` if a coordinate is not finite.
    fn place<'a>(&self, subject: &'a LabelledBox, photo: Area) -> Option<Placed<'a>> {
        let corners = <[f32; 4]>::from(subject.bounds).map(|v| v * self.scale);
        if !corners.iter().all(|v| v.is_finite()) {
            return None;
        }
        let [x0, y0, x1, y1] = corners;
        let along = |a: f32, b: f32, from: f32, to: f32| {
            let (a, b) = ((from + a.min(b)).clamp(from, to), (from + a.max(b)).clamp(from, to));
            if b - a >= 3.0 { (a, b) } else { ((a + b) / 2.0 - 1.5, (a + b) / 2.0 + 1.5) }
        };
        let ((x0, x1), (y0, y1)) = (along(x0, x1, photo.x0, photo.x1), along(y0, y1, photo.y0, photo.y1));
        Some(Placed { subject, area: Area::new(x0, y0, x1, y1) })
    }

    /// Distributes labels to the left and right margin, as many as fit, each margin's from top to bottom.
    fn labels(&self, canvas: &Canvas, placed: &[Placed], sides: &Sides, stage: Area) -> [(Margin, Vec<Label>); 2] {
        let width = MARGIN - 2.0 * PADDING - 16.0;
        let mut margins = [(Margin::Left, Vec::new(), 0.0), (Margin::Right, Vec::new(), 0.0)];
        // The order decides which labels have room: emphasised ones first, then those with a side, which fixes their margin, then the
        // rest, which may go to either.
        let mut order: Vec<usize> = (0..placed.len()).collect();
        order.sort_by_key(|&i| placed.get(i).map(|p| (!p.subject.emphasised, p.subject.side.is_none())));
        for box_index in order {
            let Some(one) = placed.get(box_index) else { continue };
            let label = Label {
                box_index,
                name: canvas.wrap(&one.subject.label, NAME_SIZE, width, 2),
                note: canvas.wrap(&one.subject.note, NOTE_SIZE, width - INDENT, 3),
            };
            let [left, right] = &mut margins;
            let to_left = match one.subject.side.and_then(|side| sides.margin(side)) {
                Some(margin) => margin == Margin::Left,
                // The fill of each margin plus the distance to it.
                None => left.2 + one.area.x0 - stage.x0 < right.2 + stage.x1 - one.area.x1,
            };
            let margin = if to_left { left } else { right };
            margin.2 += label.height() + GAP;
            margin.1.push(label);
        }
        margins.map(|(margin, mut labels, _)| {
            labels.truncate(layout::fitting(labels.iter().map(Label::height), stage.height(), GAP));
            let middle = |label: &Label| placed.get(label.box_index).map_or(0.0, |one| one.area.center()[1]);
            labels.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
            (margin, labels)
        })
    }

    fn draw_frame(&self, canvas: &mut Canvas, placed: &[Placed]) {
        let (width, height) = (canvas.image.width() as f32, canvas.image.height() as f32);
        let line = HEADER / 2.0;
        let half = width / 2.0 - 2.0 * PADDING;
        let title = canvas.shorten(&self.title, 25.0, half);
        canvas.text(PADDING, line, 25.0, INK, &title);
        let subtitle = canvas.shorten(&self.subtitle, 18.0, half);
        let left = width - PADDING - canvas.text_width(18.0, &subtitle);
        canvas.text(left, line, 18.0, FAINT, &subtitle);

        let line = height - FOOTER / 2.0;
        let mut x = PADDING;
        for (side, text) in
            [(Some(Side::Right), "R  patient's right"), (Some(Side::Left), "L  patient's left"), (None, "middle or unpaired")]
        {
            if placed.iter().any(|one| one.subject.side == side) {
                canvas.fill(Area::new(x, line - 7.0, x + 14.0, line + 7.0), 4.0, Paint::new(color(side), 1.0));
                canvas.text(x + 22.0, line, 17.0, INK, text);
                x += 22.0 + canvas.text_width(17.0, text) + 26.0;
            }
        }
        if placed.iter().any(|one| one.subject.emphasised && !one.subject.note.is_empty()) {
            canvas.dot([x + 6.0, line], 5.0, Paint::new(FINDING, 1.0));
            canvas.text(x + 20.0, line, 17.0, INK, "finding");
            x += 20.0 + canvas.text_width(17.0, "finding") + 26.0;
        }
        let text = canvas.shorten("research use, not a medical device", 16.0, width - PADDING - x);
        canvas.text(width - PADDING - canvas.text_width(16.0, &text), line, 16.0, FAINT, &text);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Margin {
    Left,
    Right,
}

/// The margin of each side of the patient, from the boxes' positions. The two are swapped in a mirrored radiograph.
struct Sides {
    left: Option<Margin>,
    /// Whether both sides have boxes. A single box may be misplaced, so the letters R and L are then not drawn.
    compared: bool,
}

impl Sides {
    fn of(placed: &[Placed], photo: Area) -> Self {
        let mean = |side| {
            let of_side = placed.iter().filter(|one| one.subject.side == Some(side));
            let (sum, count) = of_side.fold((0.0, 0.0), |(sum, count), one| (sum + one.area.center()[0], count + 1.0));
            (count > 0.0).then(|| sum / count)
        };
        let (left, right, middle) = (mean(Side::Left), mean(Side::Right), photo.center()[0]);
        let left_margin = |swapped| if swapped { Margin::Left } else { Margin::Right };
        let known = left.is_some() || right.is_some();
        let compared = left.is_some() && right.is_some();
        Self { compared, left: known.then(|| left_margin(left.unwrap_or(middle) < right.unwrap_or(middle))) }
    }

    fn margin(&self, side: Side) -> Option<Margin> {
        match (self.left?, side) {
            (margin, Side::Left) => Some(margin),
            (Margin::Left, Side::Right) => Some(Margin::Right),
            (Margin::Right, Side::Right) => Some(Margin::Left),
        }
    }

    /// Draws the letters R and L above the margins, outside of the radiograph, where they cannot be taken for markers on the film.
    fn draw(&self, canvas: &mut Canvas, stage: Area) {
        for (side, letter) in [(Side::Right, "R"), (Side::Left, "L")] {
            let Some(margin) = self.margin(side).filter(|_| self.compared) else { continue };
            let x = match margin {
                Margin::Left => stage.x0 - PADDING - canvas.text_width(34.0, letter),
                Margin::Right => stage.x1 + PADDING,
            };
            canvas.text(x, stage.y0 + 18.0, 34.0, color(Some(side)), letter);
        }
    }
}

fn draw_box(canvas: &mut Canvas, one: &Placed) {
    let color = color(one.subject.side);
    let radius = 7.0;
    let (width, opacity) = if one.subject.emphasised { (3.8, 1.0) } else { (2.0, 0.9) };
    // A dark border keeps the line visible on bright bone.
    canvas.outline(one.area, radius, width + 2.0, Paint::new(BACKGROUND, 0.35));
    if one.subject.emphasised {
        canvas.fill(one.area, radius, Paint::new(color, 0.09));
    }
    canvas.outline(one.area, radius, width, Paint::new(color, opacity));
}

fn draw_margin(canvas: &mut Canvas, placed: &[Placed], labels: Vec<Label>, margin: Margin, stage: Area) {
    let boxes: Vec<(Label, &Placed)> = labels.into_iter().filter_map(|l| placed.get(l.box_index).map(|one| (l, one))).collect();
    let wishes: Vec<Wish> = boxes.iter().map(|(label, one)| Wish { middle: one.area.center()[1], height: label.height() }).collect();
    let tops = layout::spread(&wishes, stage.y0, stage.y1, GAP);
    let width = canvas.image.width() as f32;
    let (x0, x1) = match margin {
        Margin::Left => (PADDING, MARGIN - PADDING),
        Margin::Right => (width - MARGIN + PADDING, width - PADDING),
    };
    for ((label, one), top) in boxes.iter().zip(tops) {
        let plate = Area::new(x0, top, x1, top + label.height());
        let color = color(one.subject.side);
        draw_leader(canvas, one, plate, margin, color);
        canvas.fill(plate, 7.0, Paint::new(PLATE, 0.92));
        let bar = match margin {
            Margin::Left => Area::new(plate.x1 - 5.0, plate.y0, plate.x1, plate.y1),
            Margin::Right => Area::new(plate.x0, plate.y0, plate.x0 + 5.0, plate.y1),
        };
        canvas.fill(bar, 2.5, Paint::new(color, 1.0));
        let x = plate.x0 + if margin == Margin::Left { 10.0 } else { 14.0 };
        let mut y = plate.y0 + 7.0;
        for line in &label.name {
            canvas.text(x, y + NAME_SIZE / 2.0, NAME_SIZE, INK, line);
            y += NAME_SIZE + 2.0;
        }
        if !label.note.is_empty() {
            canvas.dot([x + 4.0, y + NOTE_SIZE / 2.0], 4.0, Paint::new(FINDING, 1.0));
        }
        for line in &label.note {
            canvas.text(x + INDENT, y + NOTE_SIZE / 2.0, NOTE_SIZE, FINDING, line);
            y += NOTE_SIZE + 2.0;
        }
    }
}

/// Draws the line from a label's plate to the nearest point on the facing edge of its box.
fn draw_leader(canvas: &mut Canvas, one: &Placed, plate: Area, margin: Margin, color: [u8; 3]) {
    let middle = plate.center()[1];
    let inset = (one.area.height() / 2.0).min(10.0);
    let anchor_y = middle.clamp(one.area.y0 + inset, one.area.y1 - inset);
    let (from, elbow, anchor_x) = match margin {
        Margin::Left => (plate.x1, plate.x1 + PADDING, one.area.x0),
        Margin::Right => (plate.x0, plate.x0 - PADDING, one.area.x1),
    };
    let anchor = [anchor_x, anchor_y];
    for (width, paint) in [(3.0, Paint::new(BACKGROUND, 0.35)), (1.3, Paint::new(color, 0.75))] {
        canvas.line([from, middle], [elbow, middle], width, paint);
        canvas.line([elbow, middle], anchor, width, paint);
    }
    canvas.dot(anchor, 4.0, Paint::new(color, 1.0));
}

#[cfg(test)]
mod tests;
