//! Frame headers and scan headers.

use std::ops::RangeInclusive;

/// Coefficients of a block.
pub(super) const BLOCK: usize = 64;

/// How the picture is coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Process {
    Sequential,
    Progressive,
    Lossless,
}

/// A colour component. In a lossless process, its blocks are single samples.
pub(super) struct Component {
    id: u8,
    /// Blocks of this component in a unit of a scan with several components: horizontally, and vertically.
    pub across: usize,
    pub down: usize,
    /// Blocks in a scan of this component alone.
    pub columns: usize,
    pub rows: usize,
    /// Blocks in a row, including those that fill up the last unit.
    pub stride: usize,
    /// In a progressive process, a bit for each coefficient of each block that is not zero so far.
    pub nonzero: Vec<u64>,
    /// In a progressive process, the number of low bits of each coefficient that later scans have to supply.
    pub missing: [u8; BLOCK],
    /// Whether a scan with this component was read.
    pub scanned: bool,
}

pub(super) struct Frame {
    pub process: Process,
    pub components: Vec<Component>,
    /// Units of a scan with several components.
    pub columns: usize,
    pub rows: usize,
}

/// The problem of a segment that is shorter than its content.
pub(super) fn cut() -> String {
    "one of its segments is cut short".into()
}

impl Frame {
    /// Reads the frame header after `marker`, which has to announce these sides.
    pub fn read(marker: u8, header: &[u8], sides: [u32; 2]) -> Result<Self, String> {
        let &[_, y0, y1, x0, x1, count, ref rest @ ..] = header else { return Err(cut()) };
        let (width, height) = (u16::from_be_bytes([x0, x1]), u16::from_be_bytes([y0, y1]));
        if [width, height].map(u32::from) != sides {
            return Err("its headers give different sizes".into());
        }
        let (width, height) = (usize::from(width), usize::from(height));
        let rest = rest.as_chunks::<3>().0.get(..count.into()).ok_or_else(cut)?;
        let process = match marker {
            0xC2 => Process::Progressive,
            0xC3 => Process::Lossless,
            _ => Process::Sequential,
        };
        let factors = |[_, factors, _]: &[u8; 3]| [usize::from(factors >> 4), usize::from(factors & 15)];
        if !(1..=4).contains(&count) || width == 0 || height == 0 || !rest.iter().flat_map(factors).all(|f| (1..=4).contains(&f)) {
            return Err("its frame header is inconsistent".into());
        }
        let largest = |index: usize| rest.iter().map(|component| factors(component)[index]).max().unwrap_or(1);
        let (largest_across, largest_down) = (largest(0), largest(1));
        let side = if process == Process::Lossless { 1 } else { 8 };
        let (columns, rows) = (width.div_ceil(side * largest_across), height.div_ceil(side * largest_down));
        let component = |component: &[u8; 3]| {
            let [across, down] = factors(component);
            let stride = columns * across;
            let mut nonzero = Vec::new();
            if process == Process::Progressive {
                let blocks = stride * rows * down;
                nonzero.try_reserve_exact(blocks).map_err(|_| "there is not enough memory to check its data")?;
                nonzero.resize(blocks, 0);
            }
            Ok(Component {
                id: component[0],
                across,
                down,
                columns: (width * across).div_ceil(side * largest_across),
                rows: (height * down).div_ceil(side * largest_down),
                stride,
                nonzero,
                missing: [u8::MAX; BLOCK],
                scanned: false,
            })
        };
        let components = rest.iter().map(component).collect::<Result<_, String>>()?;
        Ok(Self { process, components, columns, rows })
    }
}

/// A scan header.
pub(super) struct Scan {
    /// For each component of the scan its index in the frame, and the indices of its DC and AC tables.
    pub components: Vec<(usize, [usize; 2])>,
    /// The coefficients of this scan.
    pub band: RangeInclusive<usize>,
    /// Whether the scan supplies another bit of coefficients that an earlier scan began.
    pub refines: bool,
    /// The number of low bits that later scans supply.
    pub low: u8,
}

impl Scan {
    pub fn read(header: &[u8], frame: &Frame) -> Result<Self, String> {
        let contradicts = || String::from("a scan header is inconsistent");
        let (&count, rest) = header.split_first().ok_or_else(cut)?;
        let (chosen, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(cut)?;
        let &[start, end, approximation] = rest.first_chunk().ok_or_else(cut)?;
        let find = |[id, tables]: &[u8; 2]| {
            let index = frame.components.iter().position(|component| component.id == *id).ok_or_else(contradicts)?;
            Ok((index, [usize::from(tables >> 4) & 3, usize::from(tables & 3)]))
        };
        let components: Vec<_> = chosen.as_chunks().0.iter().map(find).collect::<Result<_, String>>()?;
        let twice = |index: &usize| components.iter().filter(|(other, _)| other == index).count() > 1;
        if components.is_empty() || components.iter().any(|(index, _)| twice(index)) {
            return Err(contradicts());
        }
        if frame.process != Process::Progressive {
            return Ok(Self { components, band: 0..=BLOCK - 1, refines: false, low: 0 });
        }
        let (band, low) = (usize::from(start)..=usize::from(end), approximation & 15);
        // A scan holds either DC coefficients of any components or AC coefficients of one (G.1.1.1.1).
        let possible = if start == 0 { end == 0 } else { start <= end && usize::from(end) < BLOCK && components.len() == 1 };
        if !possible || low > 13 {
            return Err(contradicts());
        }
        Ok(Self { components, band, refines: approximation >> 4 != 0, low })
    }
}
