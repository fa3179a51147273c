//! The Huffman codes of a block.

use super::frame::BLOCK;
use super::huffman::Table;
use super::reader::{Broken, Reader};
use std::ops::RangeInclusive;

impl Reader<'_> {
    /// Skips the difference of a DC coefficient, or of a sample in a lossless process. A difference of 16 bits has no bits of its own
    /// (H.1.2.2).
    pub fn difference(&mut self, dc: &Option<Table>) -> Result<(), Broken> {
        match self.code(dc)? {
            16 => Ok(()),
            bits @ 0..16 => self.skip(bits.into()),
            _ => Err(Broken::Code),
        }
    }

    /// Skips a block of a sequential process (F.2.2).
    pub fn block(&mut self, dc: &Option<Table>, ac: &Option<Table>) -> Result<(), Broken> {
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

    /// Skips a block's AC coefficients in their first scan (G.2.2.2), and marks them in `nonzero`. `run` is the number of following blocks
    /// without coefficients.
    pub fn first_bits(&mut self, ac: &Option<Table>, band: &RangeInclusive<usize>, nonzero: &mut u64, run: &mut u32) -> Result<(), Broken> {
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
                    *nonzero |= 1u64.checked_shl(at as u32).ok_or(Broken::Code)?;
                    at += 1;
                }
            }
        }
        if at == band.end() + 1 { Ok(()) } else { Err(Broken::Code) }
    }

    /// Skips another bit of a block's AC coefficients (G.1.2.3): one for each coefficient in `nonzero`, and those of new ones.
    pub fn further_bits(
        &mut self,
        ac: &Option<Table>,
        band: &RangeInclusive<usize>,
        nonzero: &mut u64,
        run: &mut u32,
    ) -> Result<(), Broken> {
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
                if *nonzero >> at & 1 == 1 {
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
                *nonzero |= 1 << at;
            }
            at += 1;
        }
        if *run > 0 {
            *run -= 1;
            let rest = (at..=*band.end()).filter(|&at| *nonzero >> at & 1 == 1).count() as u32;
            for part in [rest.min(32), rest.saturating_sub(32)] {
                self.skip(part)?;
            }
        }
        Ok(())
    }
}
