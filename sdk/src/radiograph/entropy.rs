//! Whether a JPEG holds all of its picture. Decoders fill what is missing with grey and say nothing. So before one is asked, the
//! compressed data are followed here from the first block to the last: each code is looked up and counted, nothing is computed of it.
//!
//! The names of markers and the sections are those of ITU-T T.81.

use std::ops::RangeInclusive;

/// Coefficients of a block.
const BLOCK: usize = 64;
/// More scans than any encoder writes. A limit is needed because each scan visits every block, however few bytes it has.
const MAX_SCANS: usize = 100;
/// Bytes behind the last code that are taken for padding.
const PADDING: usize = 1;

/// What was found in a JPEG that holds a picture of the size that it announces.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Followed {
    /// Colour components.
    pub components: usize,
    /// Whether a decoder has to keep the coefficients of the whole picture: it comes in several scans.
    pub in_scans: bool,
    /// Why the picture may be damaged all the same.
    pub doubt: Option<String>,
}

/// How values are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Process {
    Sequential,
    Progressive,
    Lossless,
}

struct Component {
    id: u8,
    /// Blocks of it in each unit of a scan with several components.
    across: usize,
    down: usize,
    /// Blocks that a scan of this component alone has (samples, in a lossless process).
    columns: usize,
    rows: usize,
    /// Blocks in a row, those that fill up the last unit included.
    stride: usize,
    /// In a progressive process, which coefficients of each block are not zero yet: a bit for each.
    seen: Vec<u64>,
    /// In a progressive process, how many low bits of each coefficient are still to come.
    missing: [u8; BLOCK],
    scanned: bool,
}

struct Frame {
    process: Process,
    components: Vec<Component>,
    /// Units of a scan with several components.
    columns: usize,
    rows: usize,
}

/// Follows the compressed data of the picture in `bytes`, which is of this width and height.
///
/// # Errors
/// If a part of the picture is missing or cannot be understood, in words that go on from "it is damaged:".
pub(super) fn follow(bytes: &[u8], sides: [u32; 2]) -> Result<Followed, String> {
    let mut stream = Stream::new(bytes);
    if stream.marker()? != 0xD8 {
        return Err("it does not begin as a JPEG does".into());
    }
    let mut frame: Option<Frame> = None;
    let mut scans = 0;
    loop {
        match stream.marker()? {
            // The end of the image.
            0xD9 => break,
            0xD8 => return Err("another picture begins inside it".into()),
            // Markers that stand alone. A restart marker may follow the last interval.
            0x01 | 0xD0..=0xD7 => {}
            // Huffman tables, the restart interval.
            0xC4 => stream.tables()?,
            0xDD => stream.interval = usize::from(u16::from_be_bytes(*stream.segment()?.first_chunk().ok_or_else(cut)?)),
            // Frame headers.
            marker @ 0xC0..=0xC3 if frame.is_none() => frame = Some(Frame::read(marker, stream.segment()?, sides)?),
            0xC0..=0xC3 => return Err("it has two frame headers".into()),
            // Arithmetic coding and differential frames, which no decoder here reads: it will say so.
            0xC5..=0xC7 | 0xC9..=0xCF => return Ok(Followed::default()),
            0xDA => {
                let frame = frame.as_mut().ok_or("its picture has no frame header")?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(format!("its picture comes in more than {MAX_SCANS} scans"));
                }
                let header = Scan::read(stream.segment()?, frame)?;
                stream.scan(frame, &header)?;
            }
            _ => _ = stream.segment()?,
        }
    }
    let frame = frame.ok_or("its picture has no frame header")?;
    if frame.components.iter().any(|component| !component.scanned) {
        return Err("it ends before its picture does".into());
    }
    if frame.process == Process::Progressive && frame.components.iter().any(|component| component.missing != [0; BLOCK]) {
        stream.doubt("its last scans, which hold the finest detail, are missing");
    }
    let in_scans = frame.process == Process::Progressive || scans > 1;
    Ok(Followed { components: frame.components.len(), in_scans, doubt: stream.doubt })
}

fn cut() -> String {
    "one of its segments breaks off".into()
}

impl Frame {
    fn read(marker: u8, header: &[u8], sides: [u32; 2]) -> Result<Self, String> {
        let &[_, y0, y1, x0, x1, count, ref rest @ ..] = header else { return Err(cut()) };
        let (width, height) = (u16::from_be_bytes([x0, x1]), u16::from_be_bytes([y0, y1]));
        if [width, height].map(u32::from) != sides {
            return Err("it has headers of different sizes".into());
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
            return Err("its frame header contradicts itself".into());
        }
        let most = |index: usize| rest.iter().map(|component| factors(component)[index]).max().unwrap_or(1);
        let (most_across, most_down) = (most(0), most(1));
        let side = if process == Process::Lossless { 1 } else { 8 };
        let (columns, rows) = (width.div_ceil(side * most_across), height.div_ceil(side * most_down));
        let component = |component: &[u8; 3]| {
            let [across, down] = factors(component);
            let stride = columns * across;
            let mut seen = Vec::new();
            if process == Process::Progressive {
                let blocks = stride * rows * down;
                seen.try_reserve_exact(blocks).map_err(|_| "there is not enough memory to follow its data")?;
                seen.resize(blocks, 0);
            }
            Ok(Component {
                id: component[0],
                across,
                down,
                columns: (width * across).div_ceil(side * most_across),
                rows: (height * down).div_ceil(side * most_down),
                stride,
                seen,
                missing: [u8::MAX; BLOCK],
                scanned: false,
            })
        };
        let components = rest.iter().map(component).collect::<Result<_, String>>()?;
        Ok(Self { process, components, columns, rows })
    }
}

/// A scan header.
struct Scan {
    /// For each component its index in the frame and the tables of its DC and AC codes.
    components: Vec<(usize, [usize; 2])>,
    /// Which coefficients it brings.
    band: RangeInclusive<usize>,
    /// Whether it brings another bit of coefficients that an earlier scan began.
    refines: bool,
    /// How many low bits are left for later scans.
    low: u8,
}

impl Scan {
    fn read(header: &[u8], frame: &Frame) -> Result<Self, String> {
        let contradicts = || String::from("a scan header contradicts itself");
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
        // G.1.1.1.1: DC alone, of any components; or AC coefficients of one.
        let possible = if start == 0 { end == 0 } else { start <= end && usize::from(end) < BLOCK && components.len() == 1 };
        if !possible || low > 13 {
            return Err(contradicts());
        }
        Ok(Self { components, band, refines: approximation >> 4 != 0, low })
    }
}

/// Why codes cannot be followed.
enum Broken {
    /// They end before the picture does.
    End,
    /// This is no code.
    Code,
}

impl From<Broken> for String {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::End => "a part of its picture is missing".into(),
            Broken::Code => "its compressed data cannot be understood".into(),
        }
    }
}

/// A Huffman table (F.2.2.3), with the codes of up to 8 bits looked up at once.
struct Table {
    short: [(u8, u8); 256],
    /// The largest code of each length, and what leads from a code to the index of its value.
    largest: [i32; 17],
    offset: [i32; 17],
    values: Vec<u8>,
}

impl Table {
    fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table = Self { short: [(0, 0); 256], largest: [-1; 17], offset: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0i32, 0i32);
        for (length, &count) in (1..).zip(counts) {
            let count = i32::from(count);
            if code + count > 1 << length {
                return None;
            }
            table.offset[length] = index - code;
            for step in 0..count.min(if length <= 8 { count } else { 0 }) {
                let value = values[(index + step) as usize];
                let first = ((code + step) << (8 - length)) as usize;
                table.short[first..first + (1 << (8 - length))].fill((length as u8, value));
            }
            if count > 0 {
                table.largest[length] = code + count - 1;
            }
            code = (code + count) << 1;
            index += count;
        }
        Some(table)
    }

    /// The length and the value of the code that these 16 bits begin with.
    fn find(&self, bits: u32) -> Option<(u32, u8)> {
        let (length, value) = self.short[(bits >> 8) as usize & 255];
        if length > 0 {
            return Some((length.into(), value));
        }
        (9..=16usize).find_map(|length| {
            let code = (bits >> (16 - length)) as i32;
            (code <= self.largest[length]).then(|| Some((length as u32, *self.values.get((code + self.offset[length]) as usize)?)))?
        })
    }
}

/// A JPEG as it is followed.
struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits that were read and not used, the next one highest.
    bits: u64,
    count: u32,
    tables: [[Option<Table>; 4]; 2],
    /// Units between restart markers; 0 for none.
    interval: usize,
    doubt: Option<String>,
}

impl<'a> Stream<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, bits: 0, count: 0, tables: Default::default(), interval: 0, doubt: None }
    }

    /// The first doubt counts.
    fn doubt(&mut self, doubt: impl Into<String>) {
        self.doubt.get_or_insert_with(|| doubt.into());
    }

    /// The next marker; what stands before it belongs to nothing.
    fn marker(&mut self) -> Result<u8, String> {
        let ends = || String::from("it ends before its picture does");
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF);
        let skipped = rest.windows(2).position(is_marker).ok_or_else(ends)?;
        // Any number of 0xFF may stand before a marker.
        if rest[..skipped].iter().any(|&byte| byte != 0xFF) {
            self.doubt(format!("{skipped} bytes of it belong to nothing"));
        }
        self.at += skipped + 2;
        Ok(rest[skipped + 1])
    }

    /// What a marker's segment holds.
    fn segment(&mut self) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk().ok_or_else(cut)?));
        let segment = rest.get(2..length).ok_or_else(cut)?;
        self.at += length;
        Ok(segment)
    }

    fn tables(&mut self) -> Result<(), String> {
        let mut rest = self.segment()?;
        while let Some((&[class, ref counts @ ..], behind)) = rest.split_first_chunk::<17>() {
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (values, behind) = behind.split_at_checked(total).ok_or_else(cut)?;
            let table = Table::new(counts, values).filter(|_| class >> 4 < 2 && class & 15 < 4);
            let place = &mut self.tables[usize::from(class >> 4) & 1][usize::from(class & 3)];
            *place = Some(table.ok_or("a Huffman table contradicts itself")?);
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(cut()) }
    }

    /// Follows the data behind a scan header up to the next marker.
    fn scan(&mut self, frame: &mut Frame, scan: &Scan) -> Result<(), String> {
        // The tables stay as they are for the length of a scan.
        let tables = std::mem::take(&mut self.tables);
        let followed = self.units(frame, scan, &tables);
        self.tables = tables;
        followed?;
        self.pass("its picture")?;
        for &(index, _) in &scan.components {
            let component = &mut frame.components[index];
            component.scanned |= *scan.band.start() == 0;
            component.missing[scan.band.clone()].fill(scan.low);
        }
        Ok(())
    }

    fn units(&mut self, frame: &mut Frame, scan: &Scan, tables: &[[Option<Table>; 4]; 2]) -> Result<(), String> {
        (self.bits, self.count) = (0, 0);
        let (columns, rows) = match scan.components[..] {
            // A scan of one component has no units but its blocks (A.2.2).
            [(index, _)] => (frame.components[index].columns, frame.components[index].rows),
            _ => (frame.columns, frame.rows),
        };
        let alone = scan.components.len() == 1;
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
                                Process::Sequential => self.block(dc, ac)?,
                                Process::Lossless => self.difference(dc)?,
                                Process::Progressive => {
                                    let block = (row * down + y) * component.stride + column * across + x;
                                    let seen = component.seen.get_mut(block).ok_or(Broken::Code)?;
                                    match (*scan.band.start(), scan.refines) {
                                        (0, false) => self.difference(dc)?,
                                        (0, true) => self.skip(1)?,
                                        (_, false) => self.band(ac, &scan.band, seen, &mut run)?,
                                        (_, true) => self.refine(ac, &scan.band, seen, &mut run)?,
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

    /// Steps over a restart marker.
    fn restart(&mut self, number: u8) -> Result<(), String> {
        self.pass("a part of its picture")?;
        (self.bits, self.count) = (0, 0);
        match self.marker()? {
            marker if marker == 0xD0 + number => Ok(()),
            _ => Err("a part of its picture is missing: its restart markers are not in order".into()),
        }
    }

    /// Goes on to the next marker. What `what` leaves of the data is more than it should have.
    fn pass(&mut self, what: &str) -> Result<(), String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_marker = |pair: &[u8]| pair[0] == 0xFF && pair[1] != 0;
        let unread = rest.windows(2).position(is_marker).ok_or("it ends before its picture does")?;
        let more = self.count as usize / 8 + unread;
        if more > PADDING {
            self.doubt(format!("{what} leaves {more} bytes of its data unused"));
        }
        self.at += unread;
        Ok(())
    }

    /// Sees to it that as many bits as there are, up to 57, are at hand.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xFF, 0, ..] => {
                    self.at += 2;
                    0xFF
                }
                [0xFF, ..] | [] => break,
                [byte, ..] => {
                    self.at += 1;
                    *byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Takes up to 32 bits.
    fn take(&mut self, count: u32) -> Result<u32, Broken> {
        if self.count < count {
            self.fill();
        }
        if self.count < count {
            return Err(Broken::End);
        }
        // Not at once, because none may be asked for.
        let taken = (self.bits >> 32 >> (32 - count)) as u32;
        self.bits <<= count;
        self.count -= count;
        Ok(taken)
    }

    fn skip(&mut self, count: u32) -> Result<(), Broken> {
        self.take(count).map(|_| ())
    }

    /// The value of the next code.
    fn code(&mut self, table: &Option<Table>) -> Result<u8, Broken> {
        let table = table.as_ref().ok_or(Broken::Code)?;
        if self.count < 16 {
            self.fill();
        }
        let found = table.find((self.bits >> 48) as u32);
        match found {
            Some((length, value)) => self.skip(length).map(|()| value),
            None if self.count < 16 => Err(Broken::End),
            None => Err(Broken::Code),
        }
    }

    /// The difference of a DC coefficient, or of a sample in a lossless process, where one of 16 bits has none of its own (H.1.2.2).
    fn difference(&mut self, dc: &Option<Table>) -> Result<(), Broken> {
        match self.code(dc)? {
            16 => Ok(()),
            bits @ 0..16 => self.skip(bits.into()),
            _ => Err(Broken::Code),
        }
    }

    /// A block of a sequential process (F.2.2).
    fn block(&mut self, dc: &Option<Table>, ac: &Option<Table>) -> Result<(), Broken> {
        self.difference(dc)?;
        let mut at = 1;
        while at < BLOCK {
            let code = self.code(ac)?;
            match (usize::from(code >> 4), code & 15) {
                (15, 0) => at += 16,
                (_, 0) => return Ok(()),
                (zeros, bits) => {
                    at += zeros + 1;
                    self.skip(bits.into())?;
                }
            }
        }
        if at == BLOCK { Ok(()) } else { Err(Broken::Code) }
    }

    /// The first scan of a band of AC coefficients of a block (G.2.2.2); `run` blocks behind it have none.
    fn band(&mut self, ac: &Option<Table>, band: &RangeInclusive<usize>, seen: &mut u64, run: &mut u32) -> Result<(), Broken> {
        if *run > 0 {
            *run -= 1;
            return Ok(());
        }
        let mut at = *band.start();
        while at <= *band.end() {
            let code = self.code(ac)?;
            match (usize::from(code >> 4), code & 15) {
                (15, 0) => at += 16,
                (zeros, 0) => {
                    *run = (1 << zeros) - 1 + self.take(zeros as u32)?;
                    return Ok(());
                }
                (zeros, bits) => {
                    at += zeros;
                    self.skip(bits.into())?;
                    *seen |= 1u64.checked_shl(at as u32).ok_or(Broken::Code)?;
                    at += 1;
                }
            }
        }
        if at == band.end() + 1 { Ok(()) } else { Err(Broken::Code) }
    }

    /// Another bit of a band of AC coefficients of a block (G.1.2.3): of each that was seen, and of those that come now.
    fn refine(&mut self, ac: &Option<Table>, band: &RangeInclusive<usize>, seen: &mut u64, run: &mut u32) -> Result<(), Broken> {
        let mut at = *band.start();
        while *run == 0 && at <= *band.end() {
            let code = self.code(ac)?;
            let (mut zeros, bits) = (code >> 4, code & 15);
            match (zeros, bits) {
                (15, 0) => {}
                (_, 0) => {
                    *run = (1 << zeros) + self.take(zeros.into())?;
                    break;
                }
                _ => self.skip(1)?,
            }
            while at <= *band.end() {
                if *seen >> at & 1 == 1 {
                    self.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if bits > 0 {
                if at > *band.end() {
                    return Err(Broken::Code);
                }
                *seen |= 1 << at;
            }
            at += 1;
        }
        if *run > 0 {
            *run -= 1;
            let rest = (at..=*band.end()).filter(|&at| *seen >> at & 1 == 1).count() as u32;
            for part in [rest.min(32), rest.saturating_sub(32)] {
                self.skip(part)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
