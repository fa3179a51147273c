//! Scenes: patient, pose and findings of a phantom.

use crate::anatomy::{Anatomy, Build};
use crate::findings::{self, Finding, Kind, Zone};
use crate::frame::{Frame, Point};
use anatomix::{LABEL_COUNT, Label, PixelBox, STRUCTURE_COUNT, Side, Structure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The ground truth of one phantom. Equal seeds give equal scenes.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Seed that the scene was sampled from.
    pub seed: u64,
    /// Size of the picture, pose and field of view.
    pub frame: Frame,
    /// Findings and devices, sorted by kind.
    pub findings: Vec<Finding>,
    /// Whether the view is anterior-posterior; otherwise it is posterior-anterior.
    pub ap_view: bool,
    /// Whether the picture has markers, the letters of a side or a view.
    pub markers: bool,
    pub(crate) anatomy: Anatomy,
    regions: [Vec<Point>; STRUCTURE_COUNT],
}

impl Scene {
    /// Samples a scene; the longest side of its picture is 320 pixels.
    pub fn sample(seed: u64) -> Self {
        Self::sample_sized(seed, 320)
    }

    /// Samples a scene; the longest side of its picture is `longest_side` pixels.
    pub fn sample_sized(seed: u64, longest_side: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let chosen = findings::choose(&mut rng);
        let side_of = |kind| chosen.iter().find(|c| c.0 == kind).and_then(|c| c.1);
        let has = |kind| chosen.iter().any(|c| c.0 == kind);
        let build = Build {
            cardiomegaly: has(Kind::Cardiomegaly),
            wide_mediastinum: has(Kind::EnlargedMediastinum),
            fractured_clavicle: side_of(Kind::Fracture),
            collapsed_base: chosen.iter().find(|c| c.0 == Kind::Atelectasis && c.2 == Some(Zone::Lower)).and_then(|c| c.1),
        };
        let anatomy = Anatomy::sample(&mut rng, build);
        let ap_view = rng.random_bool(0.4);
        let mut findings: Vec<Finding> =
            chosen.into_iter().map(|(kind, side, zone)| Finding::place(kind, side, zone, &anatomy, &mut rng)).collect();
        let frame = Frame::sample(&mut rng, longest_side);
        // A finding outside of the field of view does not count.
        findings.retain(|finding| !finding.boxes(&frame).is_empty());
        let regions = anatomy.regions();
        Self { seed, frame, findings, ap_view, markers: true, anatomy, regions }
    }

    /// The identifier in file names and tables.
    pub fn id(&self) -> String {
        format!("phantom-{:07}", self.seed)
    }

    /// A structure's box in pixels; `None` if less than a third of it is in the picture.
    pub fn structure_box(&self, structure: Structure) -> Option<PixelBox> {
        self.frame.bounds(&self.regions[structure.index()])
    }

    /// Whether each of the 14 labels applies, in index order.
    pub fn labels(&self) -> [bool; LABEL_COUNT] {
        let mut labels = [false; LABEL_COUNT];
        for finding in &self.findings {
            for label in finding.kind.labels() {
                labels[label.index()] = true;
            }
        }
        labels[Label::NoFinding.index()] = self.findings.iter().all(|f| f.kind.is_device());
        labels
    }

    /// Category and term of each finding that a structure shows, sorted, without duplicates.
    pub fn attributes(&self, structure: Structure) -> Vec<(&'static str, &'static str)> {
        let mut terms: Vec<_> = self
            .findings
            .iter()
            .filter(|finding| shows(finding, structure))
            .flat_map(|finding| finding.kind.terms().iter().copied())
            .collect();
        terms.sort();
        terms.dedup();
        terms
    }
}

/// Whether a structure shows a finding.
fn shows(finding: &Finding, structure: Structure) -> bool {
    let name = structure.name();
    let same_side = finding.side.is_none() || structure.side() == finding.side;
    let lung = matches!(structure, Structure::LEFT_LUNG | Structure::RIGHT_LUNG) && same_side;
    let zone = |zone: &str| name.ends_with(&format!("{zone} lung zone")) && same_side;
    let apical = name.starts_with("Apical zone") && same_side;
    match finding.kind {
        Kind::Consolidation | Kind::Pneumonia | Kind::Atelectasis | Kind::LungLesion => {
            lung || finding.zone.is_some_and(|z| zone(z.name()))
        }
        Kind::Edema => lung || zone("mid") || name.starts_with("Hilar Area"),
        Kind::PleuralEffusion => lung || zone("lower") || (name.ends_with("costodiaphragmatic recess") && same_side),
        Kind::Pneumothorax => lung || zone("upper") || apical,
        Kind::PleuralThickening => lung || apical,
        Kind::Cardiomegaly => structure == Structure::HEART,
        Kind::EnlargedMediastinum => name == "Mediastinum" || name == "Superior mediastinum",
        Kind::Fracture => name.ends_with("clavicle") && same_side,
        Kind::EndotrachealTube => name == "Trachea and Main Bronchus",
        Kind::CentralLine => name == "Superior vena cava structure",
        Kind::EntericTube => name == "Structure of left upper quadrant of abdomen",
        Kind::Pacemaker => zone("upper") && structure.side() == finding.side.or(Some(Side::Left)),
    }
}
