//! Findings and devices: kinds, places, and the terms, labels and boxes that follow from them.

use crate::anatomy::{Anatomy, rounded};
use crate::frame::{Frame, Point};
use anatomix::{Label, PixelBox, Side};
use rand::{Rng, RngExt};

/// A kind of finding or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Consolidation,
    Pneumonia,
    Atelectasis,
    LungLesion,
    Edema,
    PleuralEffusion,
    Pneumothorax,
    PleuralThickening,
    Cardiomegaly,
    EnlargedMediastinum,
    Fracture,
    EndotrachealTube,
    CentralLine,
    EntericTube,
    Pacemaker,
}

/// A zone of a lung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Zone {
    Upper,
    Mid,
    Lower,
}

/// One finding of a scene.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The kind of finding.
    pub kind: Kind,
    /// The patient's side; `None` for a midline or bilateral finding.
    pub side: Option<Side>,
    /// The lung zone; `None` for kinds without one.
    pub zone: Option<Zone>,
    /// World points; the bounding box of each list is a box of the finding.
    pub(crate) regions: Vec<Vec<Point>>,
    /// Centre of the drawn shape, for the kinds that have one.
    pub(crate) center: Point,
    /// Radii of the drawn shape.
    pub(crate) radii: Point,
    /// Strength of the drawing, 0..1.
    pub(crate) strength: f32,
}

impl Kind {
    /// All kinds with their relative frequencies.
    pub const FREQUENCIES: [(Self, f32); 15] = [
        (Self::Consolidation, 1.3),
        (Self::Pneumonia, 1.3),
        (Self::Atelectasis, 1.3),
        (Self::LungLesion, 1.4),
        (Self::Edema, 1.0),
        (Self::PleuralEffusion, 1.5),
        (Self::Pneumothorax, 1.2),
        (Self::PleuralThickening, 1.1),
        (Self::Cardiomegaly, 1.2),
        (Self::EnlargedMediastinum, 1.0),
        (Self::Fracture, 1.2),
        (Self::EndotrachealTube, 0.5),
        (Self::CentralLine, 0.5),
        (Self::EntericTube, 0.5),
        (Self::Pacemaker, 0.5),
    ];

    /// The finding's name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consolidation => "consolidation",
            Self::Pneumonia => "pneumonia",
            Self::Atelectasis => "atelectasis",
            Self::LungLesion => "lung lesion",
            Self::Edema => "pulmonary edema",
            Self::PleuralEffusion => "pleural effusion",
            Self::Pneumothorax => "pneumothorax",
            Self::PleuralThickening => "pleural thickening",
            Self::Cardiomegaly => "enlarged heart",
            Self::EnlargedMediastinum => "widened mediastinum",
            Self::Fracture => "clavicle fracture",
            Self::EndotrachealTube => "endotracheal tube",
            Self::CentralLine => "central venous catheter",
            Self::EntericTube => "enteric tube",
            Self::Pacemaker => "pacemaker",
        }
    }

    /// Category and term in scene graphs.
    pub(crate) fn terms(self) -> &'static [(&'static str, &'static str)] {
        const FINDING: &str = "anatomicalfinding";
        match self {
            Self::Consolidation => &[(FINDING, "consolidation"), (FINDING, "lung opacity")],
            Self::Pneumonia => &[(FINDING, "lung opacity"), ("disease", "pneumonia")],
            Self::Atelectasis => &[(FINDING, "atelectasis"), (FINDING, "lung opacity")],
            Self::LungLesion => &[(FINDING, "lung lesion")],
            Self::Edema => &[(FINDING, "lung opacity"), (FINDING, "pulmonary edema")],
            Self::PleuralEffusion => &[(FINDING, "pleural effusion")],
            Self::Pneumothorax => &[(FINDING, "pneumothorax")],
            Self::PleuralThickening => &[(FINDING, "pleural thickening")],
            Self::Cardiomegaly => &[(FINDING, "enlarged cardiac silhouette")],
            Self::EnlargedMediastinum => &[(FINDING, "mediastinal widening")],
            Self::Fracture => &[(FINDING, "fracture")],
            Self::EndotrachealTube => &[("tubesandlines", "endotracheal tube")],
            Self::CentralLine => &[("tubesandlines", "central venous catheter")],
            Self::EntericTube => &[("tubesandlines", "enteric tube")],
            Self::Pacemaker => &[("device", "pacemaker")],
        }
    }

    /// The image labels of this kind.
    pub(crate) fn labels(self) -> &'static [Label] {
        match self {
            Self::Consolidation => &[Label::Consolidation, Label::LungOpacity],
            Self::Pneumonia => &[Label::Pneumonia, Label::LungOpacity],
            Self::Atelectasis => &[Label::Atelectasis, Label::LungOpacity],
            Self::LungLesion => &[Label::LungLesion],
            Self::Edema => &[Label::Edema, Label::LungOpacity],
            Self::PleuralEffusion => &[Label::PleuralEffusion],
            Self::Pneumothorax => &[Label::Pneumothorax],
            Self::PleuralThickening => &[Label::PleuralOther],
            Self::Cardiomegaly => &[Label::Cardiomegaly],
            Self::EnlargedMediastinum => &[Label::EnlargedCardiomediastinum],
            Self::Fracture => &[Label::Fracture],
            _ => &[Label::SupportDevices],
        }
    }

    /// Whether this is a device rather than an abnormality.
    pub fn is_device(self) -> bool {
        self.labels() == [Label::SupportDevices]
    }

    fn needs_zone(self) -> bool {
        matches!(self, Self::Consolidation | Self::Pneumonia | Self::LungLesion | Self::Atelectasis)
    }

    fn needs_side(self) -> bool {
        self.needs_zone()
            || matches!(self, Self::PleuralEffusion | Self::Pneumothorax | Self::PleuralThickening | Self::Fracture | Self::Pacemaker)
    }
}

/// Chooses kinds, sides and zones of a scene's findings. They are chosen before the anatomy, because some change its shape.
pub(crate) fn choose(rng: &mut impl Rng) -> Vec<(Kind, Option<Side>, Option<Zone>)> {
    let count = match rng.random_range(0.0..1.0) {
        x if x < 0.30 => 0,
        x if x < 0.68 => 1,
        x if x < 0.92 => 2,
        _ => 3,
    };
    let total: f32 = Kind::FREQUENCIES.iter().map(|(_, f)| f).sum();
    let mut chosen: Vec<(Kind, Option<Side>, Option<Zone>)> = Vec::new();
    while chosen.len() < count {
        let mut at = rng.random_range(0.0..total);
        let kind = Kind::FREQUENCIES
            .iter()
            .find(|(_, f)| {
                at -= f;
                at < 0.0
            })
            .map_or(Kind::Consolidation, |(k, _)| *k);
        let side = kind.needs_side().then(|| if rng.random_bool(0.5) { Side::Left } else { Side::Right });
        let zone = kind.needs_zone().then(|| match (kind, rng.random_range(0..3)) {
            (Kind::Atelectasis, 0) => Zone::Mid,
            (Kind::Atelectasis, _) => Zone::Lower,
            (_, 0) => Zone::Upper,
            (_, 1) => Zone::Mid,
            _ => Zone::Lower,
        });
        // Each kind occurs once, and each place has one opacity, because overlapping opacities cannot be told apart.
        let clashes = |other: &(Kind, Option<Side>, Option<Zone>)| {
            other.0 == kind
                || (other.1 == side && side.is_some() && other.2.is_some() && other.2 == zone)
                || (kind == Kind::Edema && other.2.is_some())
                || (other.0 == Kind::Edema && zone.is_some())
                || (other.1 == side && matches!((other.0, kind), (Kind::PleuralEffusion, _)) && zone == Some(Zone::Lower))
                || (other.1 == side && kind == Kind::PleuralEffusion && other.2 == Some(Zone::Lower))
                || (other.1 == side
                    && matches!(
                        (other.0, kind),
                        (Kind::Pneumothorax, Kind::PleuralThickening) | (Kind::PleuralThickening, Kind::Pneumothorax)
                    ))
                || (other.1 == side
                    && matches!((other.0, kind), (Kind::Pneumothorax | Kind::PleuralThickening, _))
                    && zone == Some(Zone::Upper))
                || (other.1 == side && matches!(kind, Kind::Pneumothorax | Kind::PleuralThickening) && other.2 == Some(Zone::Upper))
        };
        if !chosen.iter().any(clashes) {
            chosen.push((kind, side, zone));
        }
    }
    chosen.sort();
    chosen
}

impl Finding {
    pub(crate) fn place(kind: Kind, side: Option<Side>, zone: Option<Zone>, anatomy: &Anatomy, rng: &mut impl Rng) -> Self {
        let strength = rng.random_range(0.0..1.0);
        let mut finding = Self { kind, side, zone, regions: Vec::new(), center: [0.0; 2], radii: [0.0; 2], strength };
        let lung = anatomy.lung(side.unwrap_or(Side::Right));
        let hull = |c: Point, r: Point| rounded(c[0] - r[0], c[1] - r[1], c[0] + r[0], c[1] + r[1]);
        if let Some(zone) = zone {
            let levels = lung.levels();
            let (from, to) = match zone {
                Zone::Upper => (lung.apex, levels[1]),
                Zone::Mid => (levels[1], levels[2]),
                Zone::Lower => (levels[2], lung.dome + 0.08),
            };
            let band = lung.band(from, to);
            let x = |f: fn(f32, f32) -> f32, start| band.iter().map(|p| p[0] * lung.sign).fold(start, f);
            let (inner, outer) = (x(f32::min, 9.0), x(f32::max, -9.0));
            let (w, h) = (outer - inner, to - from);
            let share = match kind {
                Kind::LungLesion => [rng.random_range(0.22..0.34); 2],
                Kind::Atelectasis => [rng.random_range(0.38..0.46), rng.random_range(0.16..0.24)],
                _ => [rng.random_range(0.36..0.48), rng.random_range(0.38..0.50)],
            };
            let mut radii = [share[0] * w, share[1] * h];
            if kind == Kind::LungLesion {
                let r = (share[0] * w.min(h)).max(0.09);
                radii = [r, r * rng.random_range(0.85..1.15)];
            }
            let free = |half: f32, r: f32| (half - r).max(0.0) * 0.8;
            let cx = (inner + outer) / 2.0 + rng.random_range(-1.0..1.0) * free(w / 2.0, radii[0]);
            let cy = (from + to) / 2.0 + rng.random_range(-1.0..1.0) * free(h / 2.0, radii[1]);
            finding.center = [lung.sign * cx, cy];
            finding.radii = radii;
            finding.regions = vec![hull(finding.center, radii)];
            return finding;
        }
        match kind {
            Kind::Edema => {
                finding.regions = [&anatomy.right, &anatomy.left]
                    .map(|lung| {
                        let l = lung.levels();
                        lung.band(l[0] + 0.1, l[2] + 0.2)
                    })
                    .into();
            }
            Kind::PleuralEffusion => {
                let depth = rng.random_range(0.22..0.55);
                let from = lung.recess[1] - 0.12 - depth;
                finding.center = [lung.wall(from), from];
                finding.regions = vec![lung.band(from, lung.recess[1] + 0.1)];
            }
            Kind::Pneumothorax => {
                let depth = rng.random_range(0.45..0.95);
                finding.center = [0.0, lung.apex + depth];
                finding.radii = [rng.random_range(0.14..0.26), 0.0];
                finding.regions = vec![lung.band(lung.apex - 0.1, lung.apex + depth)];
            }
            Kind::PleuralThickening => {
                let to = lung.levels()[0] + rng.random_range(0.0..0.12);
                finding.center = [0.0, to];
                finding.radii = [rng.random_range(0.07..0.11), 0.0];
                finding.regions = vec![lung.band(lung.apex - 0.1, to)];
            }
            Kind::Cardiomegaly => finding.regions = vec![anatomy.heart.clone()],
            Kind::EnlargedMediastinum => {
                let m = anatomy.mediastinum;
                finding.regions = vec![rounded(-m - 0.03, -0.05, m + anatomy.arch_radius, 0.62)];
            }
            Kind::Fracture => {
                let line = anatomy.clavicle(side.unwrap_or(Side::Right));
                finding.regions = vec![line.iter().flat_map(|p| [[p[0], p[1] - 0.05], [p[0], p[1] + 0.05]]).collect()];
            }
            Kind::EndotrachealTube => {
                finding.regions = vec![rounded(-0.09, -0.45, 0.09, anatomy.carina[1] - 0.10)];
            }
            Kind::CentralLine => finding.regions = vec![rounded(-anatomy.mediastinum - 0.22, 0.0, -0.02, anatomy.heart_top + 0.1)],
            Kind::EntericTube => finding.regions = vec![rounded(-0.08, -0.4, 0.55, anatomy.left.dome + 0.35)],
            Kind::Pacemaker => {
                let at = [lung.sign * rng.random_range(0.70..0.84), lung.apex + rng.random_range(0.35..0.55)];
                finding.center = at;
                finding.radii = [rng.random_range(0.15..0.20), rng.random_range(0.12..0.16)];
                finding.regions = vec![hull(at, finding.radii)];
            }
            _ => {}
        }
        finding
    }

    /// The finding's boxes in pixels of the picture.
    pub fn boxes(&self, frame: &Frame) -> Vec<PixelBox> {
        self.regions.iter().filter_map(|region| frame.bounds(region)).collect()
    }

    /// The finding with its place, such as "consolidation in the right lower lung zone".
    pub fn phrase(&self) -> String {
        let side = match self.side {
            Some(Side::Left) => "left ",
            Some(Side::Right) => "right ",
            None => "",
        };
        let name = self.kind.name();
        match (self.kind, self.zone) {
            (_, Some(zone)) => format!("{name} in the {side}{} lung zone", zone.name()),
            (Kind::Pacemaker, _) => format!("{side}sided {name}").replace(" sided", "-sided"),
            (Kind::PleuralThickening, _) => format!("{side}apical {name}"),
            _ => format!("{side}{name}"),
        }
    }
}

impl Zone {
    /// "upper", "mid" or "lower".
    pub fn name(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::Mid => "mid",
            Self::Lower => "lower",
        }
    }
}
