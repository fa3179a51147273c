//! The scans of a JPEG, unit by unit.

use super::frame::{Frame, Process, Scan, cut};
use super::huffman::Table;
use super::reader::{Broken, Reader};

/// Bytes after the last code that count as padding.
const PADDING: usize = 1;

/// Up to four tables for DC codes, and for AC codes.
type Tables = [[Option<Table>; 4]; 2];

/// A JPEG that is being checked.
pub(super) struct Checker<'a> {
    reader: Reader<'a>,
    tables: Tables,
    /// Units between restart markers; 0 for no restart markers.
    interval: usize,
    doubt: Option<String>,
}

impl<'a> Checker<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), tables: Tables::default(), interval: 0, doubt: None }
    }

    /// Notes a doubt. Only the first is kept.
    pub fn doubt(&mut self, doubt: impl Into<String>) {
        self.doubt.get_or_insert_with(|| doubt.into());
    }

    pub fn into_doubt(self) -> Option<String> {
        self.doubt
    }

    /// The next marker.
    pub fn marker(&mut self) -> Result<u8, String> {
        let (marker, stray) = self.reader.marker()?;
        if stray > 0 {
            self.doubt(format!("{stray} bytes stand between its segments"));
        }
        Ok(marker)
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The content of the segment after a marker.
    pub fn segment(&mut self) -> Result<&'a [u8], String> {
        self.reader.segment()
    }

    pub fn restart_interval(&mut self) -> Result<(), String> {
        self.interval = usize::from(u16::from_be_bytes(*self.segment()?.first_chunk().ok_or_else(cut)?));
        Ok(())
    }

    pub fn huffman_tables(&mut self) -> Result<(), String> {
        let mut rest = self.segment()?;
        while let Some((&[class, ref counts @ ..], after)) = rest.split_first_chunk::<17>() {
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (values, after) = after.split_at_checked(total).ok_or_else(cut)?;
            let table = Table::new(counts, values).filter(|_| class >> 4 < 2 && class & 15 < 4);
            let place = &mut self.tables[usize::from(class >> 4) & 1][usize::from(class & 3)];
            *place = Some(table.ok_or("a Huffman table is inconsistent")?);
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(cut()) }
    }

    /// Reads the entropy-coded data after a scan header, up to the next marker.
    pub fn scan(&mut self, frame: &mut Frame, scan: &Scan) -> Result<(), String> {
        // Tables do not change within a scan.
        let tables = std::mem::take(&mut self.tables);
        let read = self.units(frame, scan, &tables);
        self.tables = tables;
        read?;
        self.end_data("its picture")?;
        for &(index, _) in &scan.components {
            let component = &mut frame.components[index];
            component.scanned |= *scan.band.start() == 0;
            component.missing[scan.band.clone()].fill(scan.low);
        }
        Ok(())
    }

    fn units(&mut self, frame: &mut Frame, scan: &Scan, tables: &Tables) -> Result<(), String> {
        self.reader.begin_data();
        let alone = scan.components.len() == 1;
        let (columns, rows) = match scan.components[..] {
            // The units of a scan of one component are its blocks (A.2.2).
            [(index, _)] => (frame.components[index].columns, frame.components[index].rows),
            _ => (frame.columns, frame.rows),
        };
        let (mut run, mut left, mut number) = (0, self.interval, 0);
        for row in 0..rows {
            for column in 0..columns {
                if self.interval > 0 && left == 0 {
                    self.restart(number)?;
                    (run, left, number) = (0, self.interval, (number + 1) % 8);
                }
                left = left.wrapping_sub(1);
                for &(index, [dc, ac]) in &scan.components {
                    let component = &mut frame.components[index];
                    let [dc, ac] = [&tables[0][dc], &tables[1][ac]];
                    let (across, down) = if alone { (1, 1) } else { (component.across, component.down) };
                    for y in 0..down {
                        for x in 0..across {
                            match frame.process {
                                Process::Sequential => self.reader.block(dc, ac)?,
                                Process::Lossless => self.reader.difference(dc)?,
                                Process::Progressive => {
                                    let block = (row * down + y) * component.stride + column * across + x;
                                    let nonzero = component.nonzero.get_mut(block).ok_or(Broken::Code)?;
                                    match (*scan.band.start(), scan.refines) {
                                        (0, false) => self.reader.difference(dc)?,
                                        (0, true) => self.reader.skip(1)?,
                                        (_, false) => self.reader.first_bits(ac, &scan.band, nonzero, &mut run)?,
                                        (_, true) => self.reader.further_bits(ac, &scan.band, nonzero, &mut run)?,
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Steps over a restart marker, which has to have this number.
    fn restart(&mut self, number: u8) -> Result<(), String> {
        self.end_data("part of its picture")?;
        self.reader.begin_data();
        match self.marker()? {
            marker if marker == 0xD0 + number => Ok(()),
            _ => Err("a part of its picture is missing: its restart markers are out of order".into()),
        }
    }

    /// Goes on to the next marker. Data that `part` leaves unused are a doubt.
    fn end_data(&mut self, part: &str) -> Result<(), String> {
        let unused = self.reader.end_data()?;
        if unused > PADDING {
            self.doubt(format!("{unused} bytes of data in {part} are not used"));
        }
        Ok(())
    }
}
