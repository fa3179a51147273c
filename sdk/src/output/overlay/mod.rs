//! A radiograph with boxes over it, as a picture that a person reads.
//!
//! The radiograph stands in the middle, labels stand in the margins beside it and point at their boxes, so that no label
//! hides anatomy or another label. The patient's right and left have a colour each.

mod canvas;
mod layout;
mod names;
mod picture;
mod subject;

pub use names::short_name;

use super::{OutputError, write_whole};
use crate::Radiograph;
use crate::anatomy::Side;
use crate::geometry::PixelBox;
use canvas::{Area, Canvas, Paint};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use layout::Wish;
use std::io::Cursor;
use std::path::Path;

/// Longest side of the radiograph on the canvas, in pixels; the rest of the layout is drawn to match.
const STAGE: f32 = 1100.0;
/// Least width and height of the room for the radiograph: labels need it, however narrow the radiograph is.
const LEAST: [f32; 2] = [480.0, 640.0];
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

/// Height of the letter above a margin's labels.
const HEADING: f32 = 46.0;
const NAME_SIZE: f32 = 20.0;
const NOTE_SIZE: f32 = 16.5;
/// A note stands this far right of its label, behind its dot.
const INDENT: f32 = 14.0;

/// A box with what is written about it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// Where, in pixels of the radiograph.
    pub bounds: PixelBox,
    /// What it is, in a few words.
    pub label: String,
    /// What is found there, in smaller letters below the label; may be empty.
    pub note: String,
    /// The patient's side, which gives the colour; `None` for what stands in the middle.
    pub side: Option<Side>,
    /// Whether it is drawn with emphasis: it shows a finding.
    pub emphasised: bool,
}

/// A radiograph with boxes over it; see [`Overlay::render`].
#[derive(Clone, Debug)]
pub struct Overlay {
    picture: GrayImage,
    /// Pixels of the canvas for a pixel of the radiograph.
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

/// A label with its lines, before it has its place.
struct Label {
    /// Index of its box.
    of: usize,
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
    /// An overlay of these boxes; the title is the radiograph's file name.
    pub fn new(radiograph: &Radiograph, boxes: Vec<LabelledBox>) -> Self {
        let (width, height) = (radiograph.width() as f32, radiograph.height() as f32);
        let scale = STAGE / width.max(height);
        let side = |pixels: f32| (pixels * scale).round().max(1.0) as u32;
        let path = Path::new(radiograph.name());
        Self {
            picture: picture::draw(radiograph, side(width), side(height)),
            scale,
            title: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            subtitle: String::new(),
            boxes,
        }
    }

    /// A line at the right of the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Draws the picture; its longest side has 1,100 to 1,650 pixels.
    pub fn render(&self) -> RgbImage {
        let size = [self.picture.width() as f32, self.picture.height() as f32];
        let room = [size[0].max(LEAST[0]), size[1].max(LEAST[1])];
        let (width, height) = (room[0] + 2.0 * MARGIN, room[1] + HEADER + FOOTER);
        let stage = Area::new(MARGIN, HEADER, MARGIN + room[0], HEADER + room[1]);
        let corner = [(stage.x0 + (room[0] - size[0]) / 2.0).floor(), (stage.y0 + (room[1] - size[1]) / 2.0).floor()];

        let mut canvas = Canvas::new(width as u32, height as u32, BACKGROUND);
        for (x, y, pixel) in self.picture.enumerate_pixels() {
            // A little dimmed: lines and labels are the brightest thing in the picture.
            let grey = (f32::from(pixel.0[0]) * 0.86) as u8;
            canvas.image.put_pixel(x + corner[0] as u32, y + corner[1] as u32, Rgb([grey; 3]));
        }
        let photo = Area::new(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]);
        let placed: Vec<Placed> = self.boxes.iter().filter_map(|subject| self.place(subject, photo)).collect();
        // Emphasis lies on top, the middle below.
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

    /// Draws the picture and writes it as a PNG file, whole or not at all.
    ///
    /// # Errors
    /// [`OutputError`], naming the path.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        self.render()
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .map_err(|e| OutputError::Encode { path: path.into(), message: e.to_string() })?;
        write_whole(path, &bytes)
    }

    /// On the canvas, inside the radiograph and at least 3 pixels wide and high; nothing for coordinates that are no numbers.
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

    /// The labels of the left and of the right margin, from top to bottom, as many as there is room for.
    fn labels(&self, canvas: &Canvas, placed: &[Placed], sides: &Sides, stage: Area) -> [(Margin, Vec<Label>); 2] {
        let width = MARGIN - 2.0 * PADDING - 16.0;
        let mut margins = [(Margin::Left, Vec::new(), 0.0), (Margin::Right, Vec::new(), 0.0)];
        // Who comes first has room: emphasis, then the sides, whose margin is given, then the middle, which has a choice.
        let mut order: Vec<usize> = (0..placed.len()).collect();
        order.sort_by_key(|&of| placed.get(of).map(|p| (!p.subject.emphasised, p.subject.side.is_none())));
        for of in order {
            let Some(one) = placed.get(of) else { continue };
            let label = Label {
                of,
                name: canvas.wrap(&one.subject.label, NAME_SIZE, width, 2),
                note: canvas.wrap(&one.subject.note, NOTE_SIZE, width - INDENT, 3),
            };
            let [left, right] = &mut margins;
            let to_left = match one.subject.side.and_then(|side| sides.margin(side)) {
                Some(margin) => margin == Margin::Left,
                // The emptier margin and the nearer one.
                None => left.2 + one.area.x0 - stage.x0 < right.2 + stage.x1 - one.area.x1,
            };
            let margin = if to_left { left } else { right };
            margin.2 += label.height() + GAP;
            margin.1.push(label);
        }
        margins.map(|(margin, mut labels, _)| {
            labels.truncate(layout::fitting(labels.iter().map(Label::height), stage.height(), GAP));
            let middle = |label: &Label| placed.get(label.of).map_or(0.0, |one| one.area.center()[1]);
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

/// Which margin each side of the patient belongs to, as the boxes say: a mirrored radiograph has them swapped.
struct Sides {
    left: Option<Margin>,
    /// Whether there are boxes of both sides: one alone may be misplaced.
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

    /// The letters above the margins. Not in the picture: those on the film are evidence, these are not.
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
    // A dark seam keeps the line visible on bright bone.
    canvas.outline(one.area, radius, width + 2.0, Paint::new(BACKGROUND, 0.35));
    if one.subject.emphasised {
        canvas.fill(one.area, radius, Paint::new(color, 0.09));
    }
    canvas.outline(one.area, radius, width, Paint::new(color, opacity));
}

fn draw_margin(canvas: &mut Canvas, placed: &[Placed], labels: Vec<Label>, margin: Margin, stage: Area) {
    let boxes: Vec<(Label, &Placed)> = labels.into_iter().filter_map(|l| placed.get(l.of).map(|one| (l, one))).collect();
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

/// From the plate to the nearest point of the box's edge on that side.
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
