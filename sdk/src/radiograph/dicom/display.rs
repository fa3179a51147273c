//! The display chain, from stored values to displayed intensities: modality, values of interest (VOI), polarity, padding.

use super::dataset::{DataSet, MAX_CHOICES, Place, TOP};
use super::lut;
use crate::radiograph::RadiographError;
use crate::radiograph::shown::{Function, Modality, Shown, Voi};
use crate::radiograph::stored::Samples;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use std::ops::RangeInclusive;

/// The bits of a stored word that are its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bits {
    /// Number of bits, 1 to 16.
    pub stored: u32,
    /// Number of lower bits that are not used.
    pub shift: u32,
    /// Whether the value is in two's complement.
    pub signed: bool,
}

impl Bits {
    /// Number of different values.
    fn count(self) -> usize {
        1 << self.stored
    }

    /// The index of a word's value: its used bits.
    fn index(self, word: usize) -> usize {
        (word >> self.shift) & (self.count() - 1)
    }

    /// The value at an index.
    fn value(self, index: usize) -> i32 {
        let value = index as i32;
        if self.signed && index >= self.count() / 2 { value - self.count() as i32 } else { value }
    }
}

/// The display chain of one file.
#[derive(Debug, PartialEq)]
pub(super) struct Display {
    /// Which of the header's transforms of interest it has, counted from 1; `None` if there are none.
    pub window: Option<usize>,
    modality: Modality,
    voi: Voi,
    /// Whether small values are displayed bright.
    inverted: bool,
    /// Stored values that are padding.
    padding: Option<RangeInclusive<i32>>,
}

impl Display {
    /// Reads the header. `window` chooses a transform of interest, counted from 1: first come the tables, then the windows.
    pub fn read(data: &DataSet, signed: bool, window: usize) -> Result<Self, RadiographError> {
        let modality = match lut::read(data, tags::MODALITY_LUT_SEQUENCE.into(), signed, "Modality LUT")? {
            Some(table) => Modality::Table(table),
            None => {
                let slope = data.decimal(tags::RESCALE_SLOPE, "Rescale Slope")?.unwrap_or(1.0);
                let intercept = data.decimal(tags::RESCALE_INTERCEPT, "Rescale Intercept")?.unwrap_or(0.0);
                if slope == 0.0 {
                    return Err(data.malformed("Rescale Slope is 0, which would make every pixel the same"));
                }
                Modality::Linear { slope, intercept }
            }
        };
        let below_zero = matches!(modality, Modality::Linear { intercept, .. } if signed || intercept < 0.0);
        let tables: Vec<Place> =
            (0..MAX_CHOICES).map(|item| Place::new(tags::VOILUT_SEQUENCE, item)).filter(|&place| data.has(place)).collect();
        let windows = data.count(tags::WINDOW_CENTER).min(data.count(tags::WINDOW_WIDTH));
        let choices = tables.len() + windows;
        let index = window.checked_sub(1).filter(|&index| index < choices.max(1)).ok_or_else(|| {
            let choices = match choices {
                0 => "it has no windows; leave the option out".into(),
                1 => "it has one; choose 1".into(),
                _ => format!("it has {choices}; choose 1 to {choices}"),
            };
            data.unsupported(format!("window {window} was chosen, but {choices}"))
        })?;
        let table = tables.get(index).map_or(Ok(None), |&place| lut::read(data, place, below_zero, "VOI LUT"))?;
        let voi = match table {
            Some(table) => Voi::Table(table),
            None if choices == 0 => Voi::Everything,
            None => window_at(data, index - tables.len())?,
        };
        let inverse = match data.text(TOP, tags::PRESENTATION_LUT_SHAPE).as_deref() {
            None | Some("IDENTITY") => false,
            Some("INVERSE") => true,
            Some(other) => {
                return Err(
                    data.unsupported(format!("its Presentation LUT Shape is {other}, which is not supported; export it with IDENTITY"))
                );
            }
        };
        let photometric = data.text(TOP, tags::PHOTOMETRIC_INTERPRETATION);
        // MONOCHROME1 and the shape INVERSE mean the same. A file for presentation in MONOCHROME1 has both, so they do not cancel.
        let inverted = photometric.as_deref() == Some("MONOCHROME1") || inverse;
        let stored = |tag: Tag| data.word(tag).map(|word| if signed { i32::from(word as i16) } else { i32::from(word) });
        let padding = stored(tags::PIXEL_PADDING_VALUE).map(|value| {
            let limit = stored(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value);
            value.min(limit)..=value.max(limit)
        });
        Ok(Self { window: (choices > 0).then_some(window), modality, voi, inverted, padding })
    }

    /// The displayed intensity of each possible stored word, 0..1; 0 is black.
    pub fn levels(&self, samples: &Samples, bits: Bits) -> Vec<f32> {
        let mut levels: Vec<Option<f64>> = (0..bits.count()).map(|index| self.level(bits.value(index))).collect();
        if self.voi == Voi::Everything {
            stretch(&mut levels, self.range(samples, bits));
        }
        let shown = |level: &Option<f64>| {
            // Padding is black in both polarities.
            level.map_or(0.0, |level| if self.inverted { 1.0 - level } else { level }) as f32
        };
        let shown: Vec<f32> = levels.iter().map(shown).collect();
        (0..samples.depth.values()).map(|word| shown[bits.index(word)]).collect()
    }

    /// The smallest and the largest output of the modality transform that occur.
    fn range(&self, samples: &Samples, bits: Bits) -> [f64; 2] {
        let mut occurs = vec![false; bits.count()];
        for (word, _) in samples.occurring().into_iter().enumerate().filter(|&(_, occurs)| occurs) {
            occurs[bits.index(word)] = true;
        }
        let found = occurs.iter().enumerate().filter(|&(_, &occurs)| occurs).filter_map(|(index, _)| self.value(bits.value(index)));
        found.fold([f64::MAX, f64::MIN], |[low, high], value| [low.min(value), high.max(value)])
    }

    /// The transforms, as an object that refers to the image repeats them. Where the header has no VOI transform, it is the window of the
    /// values that occur.
    pub fn shown(self, samples: &Samples, bits: Bits, aspect: [u32; 2], lossy: bool) -> Shown {
        let voi = match self.voi {
            Voi::Everything => {
                let [low, high] = self.range(samples, bits);
                // Nothing occurs if all pixels are padding.
                let [low, high] = if low <= high { [low, high] } else { [0.0, 0.0] };
                Voi::Window { function: Function::Linear, center: (low + high + 1.0) / 2.0, width: high - low + 1.0 }
            }
            voi => voi,
        };
        Shown { modality: self.modality, voi, inverted: self.inverted, aspect, lossy }
    }

    /// The output of the modality transform; `None` for padding.
    fn value(&self, stored: i32) -> Option<f64> {
        if self.padding.as_ref().is_some_and(|padding| padding.contains(&stored)) {
            return None;
        }
        Some(match &self.modality {
            Modality::Linear { slope, intercept } => f64::from(stored) * slope + intercept,
            Modality::Table(table) => f64::from(table.at(stored.into())),
        })
    }

    /// The level of a stored value; `None` for padding. It is 0..1, except for [`Voi::Everything`], where it is not scaled yet.
    fn level(&self, stored: i32) -> Option<f64> {
        let value = self.value(stored)?;
        Some(match &self.voi {
            Voi::Everything => value,
            Voi::Window { function, center, width } => function.level(value, *center, *width).clamp(0.0, 1.0),
            Voi::Table(table) => table.share(value).min(1.0),
        })
    }
}

/// Scales levels so that the lower end of the range is 0 and the upper end 1.
fn stretch(levels: &mut [Option<f64>], [low, high]: [f64; 2]) {
    let scale = if high > low { 1.0 / (high - low) } else { 0.0 };
    for level in levels.iter_mut().flatten() {
        *level = ((*level - low) * scale).clamp(0.0, 1.0);
    }
}

/// The window at an index, or all values if it is empty.
fn window_at(data: &DataSet, index: usize) -> Result<Voi, RadiographError> {
    let center = data.decimal_at(tags::WINDOW_CENTER, index, "Window Center")?;
    let width = data.decimal_at(tags::WINDOW_WIDTH, index, "Window Width")?;
    let (Some(center), Some(width)) = (center, width) else { return Ok(Voi::Everything) };
    let function = match data.text(TOP, tags::VOILUT_FUNCTION).as_deref() {
        None | Some("LINEAR") => Function::Linear,
        Some("LINEAR_EXACT") => Function::LinearExact,
        Some("SIGMOID") => Function::Sigmoid,
        Some(other) => return Err(data.malformed(format!("VOI LUT Function is \"{other}\", which DICOM does not define"))),
    };
    if !function.allows(width) {
        return Err(data.malformed(format!("Window Width is {width}, which shows nothing")));
    }
    Ok(Voi::Window { function, center, width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::shown::Lut;
    use crate::radiograph::stored::Depth;

    const TWELVE: Bits = Bits { stored: 12, shift: 0, signed: false };

    fn intensities(display: &Display, words: &[u16]) -> Vec<f32> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let levels = display.levels(&Samples { depth: Depth::Two, bytes: bytes.into() }, TWELVE);
        words.iter().map(|&word| levels[usize::from(word)]).collect()
    }

    fn display(voi: Voi) -> Display {
        Display { modality: Modality::Linear { slope: 1.0, intercept: 0.0 }, voi, inverted: false, padding: None, window: None }
    }

    #[test]
    fn values_are_taken_from_words() {
        let bits = Bits { stored: 12, shift: 4, signed: true };
        let value = |word| bits.value(bits.index(word));
        assert_eq!([value(0x0010), value(0xFFF0), value(0x8000), value(0x7FFF)], [1, -1, -2048, 2047]);
        let whole = Bits { stored: 16, shift: 0, signed: false };
        assert_eq!(whole.value(whole.index(0xFFFF)), 65535);
    }

    #[test]
    fn values_that_occur_are_stretched_to_the_full_range() {
        let chain = display(Voi::Everything);
        assert_eq!(intensities(&chain, &[100, 150, 200]), [0.0, 0.5, 1.0]);
        assert_eq!(intensities(&chain, &[7, 7]), [0.0, 0.0]);
        assert!(intensities(&chain, &[]).is_empty());
    }

    #[test]
    fn windows_are_those_of_the_standard() {
        // The example of PS3.3 C.11.2.1.2: centre 2048, width 4096 is the identity of 12 bits.
        for value in [0.0, 1.0, 2047.0, 4095.0] {
            assert!((Function::Linear.level(value, 2048.0, 4096.0) - value / 4095.0).abs() < 1e-12);
            assert!((Function::LinearExact.level(value, 2048.0, 4096.0) - value / 4096.0).abs() < 1e-12);
        }
        assert_eq!(Function::Linear.level(10.0, 10.0, 1.0), 1.0);
        assert_eq!(Function::Linear.level(9.0, 10.0, 1.0), 0.0);
        assert_eq!(Function::Sigmoid.level(50.0, 50.0, 10.0), 0.5);
        assert!((Function::Sigmoid.level(60.0, 50.0, 40.0) - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        let window = Voi::Window { function: Function::LinearExact, center: 100.0, width: 100.0 };
        assert_eq!(intensities(&display(window), &[0, 50, 100, 150, 4000]), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn padding_is_black_in_both_polarities_and_does_not_count() {
        let mut chain = Display { padding: Some(0..=9), ..display(Voi::Everything) };
        assert_eq!(intensities(&chain, &[0, 9, 10, 30]), [0.0, 0.0, 0.0, 1.0]);
        chain.inverted = true;
        assert_eq!(intensities(&chain, &[0, 9, 10, 30]), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn tables_follow_each_other() {
        let modality = Modality::Table(Lut { first: 0, entries: vec![3, 2, 1, 0], bits: 8 });
        let voi = Voi::Table(Lut { first: 1, entries: vec![0, 51, 255], bits: 8 });
        let chain = Display { window: None, modality, voi, inverted: false, padding: None };
        assert_eq!(intensities(&chain, &[0, 1, 2, 3, 4000]), [1.0, 0.2, 0.0, 0.0, 0.0]);
    }
}
