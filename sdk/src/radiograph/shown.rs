//! How a DICOM file's pixels are displayed: the transforms of its header. The radiograph's intensities are made with them, and objects that
//! refer to the image repeat them.

use serde::{Deserialize, Serialize};

/// A modality or VOI look-up table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lut {
    /// The input of the first entry.
    pub first: i32,
    /// At least one entry, and at most 65536.
    pub entries: Vec<u16>,
    /// Bits of an entry, 8 to 16.
    pub bits: u32,
}

/// The modality transform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Modality {
    Linear { slope: f64, intercept: f64 },
    Table(Lut),
}

/// The VOI (values of interest) transform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Voi {
    /// The range of values that occur.
    Everything,
    Window {
        function: Function,
        center: f64,
        width: f64,
    },
    Table(Lut),
}

/// How a window maps values to levels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Function {
    Linear,
    LinearExact,
    Sigmoid,
}

/// What a presentation state repeats of its image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub modality: Modality,
    /// Never [`Voi::Everything`]: that range is a window here.
    pub voi: Voi,
    /// Whether small values are displayed bright.
    pub inverted: bool,
    /// Height and width of a pixel in any unit.
    pub aspect: [u32; 2],
    /// Whether the image was compressed with losses.
    pub lossy: bool,
}

impl Lut {
    /// The entry of an input. Inputs before the first entry or after the last have that entry.
    pub fn at(&self, input: f64) -> u16 {
        let last = self.entries.len().saturating_sub(1);
        let index = (input - f64::from(self.first)).round().clamp(0.0, last as f64) as usize;
        self.entries.get(index).copied().unwrap_or(0)
    }

    /// The entry as a share of the largest possible one.
    pub fn share(&self, input: f64) -> f64 {
        f64::from(self.at(input)) / f64::from((1u32 << self.bits) - 1)
    }

    fn is_valid(&self) -> bool {
        // The first input is a word of 16 bits, with or without a sign.
        (1..=1 << 16).contains(&self.entries.len()) && (8..=16).contains(&self.bits) && (-0x8000..0x1_0000).contains(&self.first)
    }
}

impl Function {
    /// The level of a value in a window (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3), not clamped to 0..1.
    pub fn level(self, value: f64, center: f64, width: f64) -> f64 {
        match self {
            // A window of width 1 is a threshold.
            Self::Linear if width <= 1.0 => f64::from(value > center - 0.5),
            Self::Linear => (value - (center - 0.5)) / (width - 1.0) + 0.5,
            Self::LinearExact => (value - center) / width + 0.5,
            Self::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        }
    }

    /// Whether a window of this width shows anything.
    pub fn allows(self, width: f64) -> bool {
        if self == Self::Linear { width >= 1.0 } else { width > 0.0 }
    }
}

impl Shown {
    /// Whether this could have been read from a file.
    pub fn is_valid(&self) -> bool {
        let modality = match &self.modality {
            Modality::Linear { slope, intercept } => slope.is_finite() && *slope != 0.0 && intercept.is_finite(),
            Modality::Table(table) => table.is_valid(),
        };
        let voi = match &self.voi {
            Voi::Everything => false,
            Voi::Window { function, center, width } => center.is_finite() && width.is_finite() && function.allows(*width),
            Voi::Table(table) => table.is_valid(),
        };
        modality && voi && self.aspect.iter().all(|side| (1..=1 << 16).contains(side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_beyond_the_ends_have_the_entry_at_that_end() {
        let lut = Lut { first: -2, entries: vec![10, 20, 30], bits: 8 };
        let found: Vec<u16> = [-1e9, -2.0, -1.0, 0.0, 1.0, 1e9].iter().map(|&input| lut.at(input)).collect();
        assert_eq!(found, [10, 10, 20, 30, 30, 30]);
        assert_eq!(lut.share(0.0), 30.0 / 255.0);
    }

    #[test]
    fn what_no_file_gives_is_not_valid() {
        let table = |first, count, bits| Lut { first, entries: vec![0; count], bits };
        let window = |function, width| Voi::Window { function, center: 0.0, width };
        let linear = |slope| Modality::Linear { slope, intercept: 0.0 };
        let shown = |modality, voi| Shown { modality, voi, inverted: false, aspect: [1, 1], lossy: false };
        let whole = shown(Modality::Table(table(-5, 65536, 16)), window(Function::Sigmoid, 0.5));
        assert!(whole.is_valid());
        assert_eq!(serde_json::from_str::<Shown>(&serde_json::to_string(&whole).unwrap()).unwrap(), whole);
        for wrong in [
            shown(linear(0.0), window(Function::Linear, 9.0)),
            shown(linear(f64::NAN), window(Function::Linear, 9.0)),
            shown(linear(1.0), window(Function::Linear, 0.5)),
            shown(linear(1.0), window(Function::LinearExact, f64::INFINITY)),
            shown(linear(1.0), Voi::Everything),
            shown(linear(1.0), Voi::Table(table(0, 0, 8))),
            shown(linear(1.0), Voi::Table(table(0, 65537, 8))),
            shown(Modality::Table(table(0, 1, 17)), window(Function::Linear, 9.0)),
            shown(Modality::Table(table(65536, 1, 8)), window(Function::Linear, 9.0)),
            Shown { aspect: [0, 1], ..shown(linear(1.0), window(Function::Linear, 9.0)) },
        ] {
            assert!(!wrong.is_valid(), "{wrong:?}");
        }
    }
}
