//! Which values of the trained parameters a process updates if the optimiser is sharded (ZeRO, stage 1: Rajbhandari et al. 2020).
//!
//! The values of all parameters, one parameter after the other, are cut into blocks, and each block into a part for each process. So every
//! process has the same number of values, however large single parameters are, and an exchange needs the memory of one block.

use super::peers::Peers;
use anyhow::Result;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Number of values of a process in a block.
const PART: i64 = 1 << 22;

/// A part of a parameter: the parameter's index, and values of it in the order of memory.
pub type Piece = (usize, Range<i64>);

/// The parts of all processes.
#[derive(Clone, Debug)]
pub struct Shards {
    /// Where each parameter begins, and the end of the last one.
    offsets: Vec<i64>,
    processes: i64,
    part: i64,
}

impl Shards {
    /// The parts of parameters with these numbers of values.
    pub fn new(sizes: &[i64], processes: usize) -> Self {
        Self::of_parts(sizes, processes, PART)
    }

    fn of_parts(sizes: &[i64], processes: usize, part: i64) -> Self {
        let mut offsets = vec![0];
        offsets.extend(sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        }));
        Self { offsets, processes: processes as i64, part }
    }

    /// The pieces that a process updates, in order.
    pub fn of_process(&self, rank: usize) -> Vec<Piece> {
        self.blocks().flat_map(|block| self.pieces(self.share(&block, rank as i64))).collect()
    }

    fn blocks(&self) -> impl Iterator<Item = Range<i64>> + use<> {
        let (total, block) = (self.offsets.last().copied().unwrap_or(0), self.part * self.processes);
        (0..total).step_by(block as usize).map(move |from| from..(from + block).min(total))
    }

    /// The part of a process in a block.
    fn share(&self, block: &Range<i64>, rank: i64) -> Range<i64> {
        let at = |rank: i64| block.start + (block.end - block.start) * rank / self.processes;
        at(rank)..at(rank + 1)
    }

    /// The pieces of a range of all values.
    fn pieces(&self, range: Range<i64>) -> Vec<Piece> {
        let mut found = Vec::new();
        let mut index = self.offsets.partition_point(|&offset| offset <= range.start).saturating_sub(1);
        let mut from = range.start;
        while from < range.end {
            let (begin, end) = (self.offsets[index], self.offsets[index + 1]);
            let to = end.min(range.end);
            if to > from {
                found.push((index, from - begin..to - begin));
            }
            (index, from) = (index + 1, to.max(from));
        }
        found
    }

    /// Gives all processes what each has updated. `parameters` are the values of each parameter in the order of memory.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn exchange(&self, peers: Peers, parameters: &[Tensor]) -> Result<()> {
        let of = |(index, range): &Piece| parameters[*index].narrow(0, range.start, range.end - range.start);
        self.each(
            peers,
            |rank, block| self.pieces(self.share(block, rank)).iter().map(of).collect(),
            |rank, values, block| {
                let mut from = 0;
                for piece in self.pieces(self.share(block, rank)) {
                    let mut part = of(&piece);
                    let count = part.numel() as i64;
                    part.copy_(&values.narrow(0, from, count));
                    from += count;
                }
            },
        )
    }

    /// Collects values of which each process has its own pieces, one after the other in `own`. The first process gets those of each
    /// parameter in the order of memory; the others get nothing.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn collect(&self, peers: Peers, own: &Tensor) -> Result<Vec<Tensor>> {
        let sizes = self.offsets.windows(2).map(|ends| ends[1] - ends[0]);
        let whole: Vec<Tensor> =
            if peers.is_first() { sizes.map(|size| Tensor::zeros([size], (Kind::Float, own.device()))).collect() } else { vec![] };
        let mut taken = 0;
        let mut values = |rank: i64, block: &Range<i64>| {
            let range = self.share(block, rank);
            let count = range.end - range.start;
            taken += count;
            vec![own.narrow(0, taken - count, count)]
        };
        // Own values are sent block by block, in the order in which they are kept.
        self.each(peers, &mut values, |rank, values, block| {
            let mut from = 0;
            for (index, range) in self.pieces(self.share(block, rank)) {
                let count = range.end - range.start;
                if let Some(parameter) = whole.get(index) {
                    parameter.narrow(0, range.start, count).copy_(&values.narrow(0, from, count));
                }
                from += count;
            }
        })?;
        Ok(whole)
    }

    /// Exchanges block by block: `own` gives the values of this process in a block, `other` takes those of a process.
    fn each(
        &self,
        peers: Peers,
        mut own: impl FnMut(i64, &Range<i64>) -> Vec<Tensor>,
        mut other: impl FnMut(i64, &Tensor, &Range<i64>),
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for block in self.blocks() {
            let mut parts = own(peers.rank() as i64, &block);
            let length: i64 = parts.iter().map(|part| part.numel() as i64).sum();
            let width = (0..self.processes).map(|rank| self.share(&block, rank)).map(|share| share.end - share.start).max().unwrap_or(0);
            let options = parts.first().map_or((Kind::Float, peers.device()), |part| (part.kind(), part.device()));
            parts.push(Tensor::zeros([width - length], options));
            let all = peers.gather(&Tensor::cat(&parts, 0))?;
            for rank in 0..self.processes {
                other(rank, &all.narrow(0, rank * width, width), &block);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_belongs_to_one_process() {
        let sizes = [5, 1, 0, 40, 3, 17, 1];
        for (processes, part) in [(1, 100), (2, 4), (3, 5), (4, 100), (80, 1)] {
            let shards = Shards::of_parts(&sizes, processes, part);
            let mut owners: Vec<Vec<usize>> = sizes.iter().map(|&size| vec![usize::MAX; size as usize]).collect();
            let mut counts = vec![0; processes];
            for (rank, count) in counts.iter_mut().enumerate() {
                for (index, range) in shards.of_process(rank) {
                    for at in range {
                        assert_eq!(owners[index][at as usize], usize::MAX, "two processes have a value");
                        owners[index][at as usize] = rank;
                        *count += 1;
                    }
                }
            }
            assert!(owners.concat().iter().all(|&owner| owner < processes), "nobody has a value");
            // Blocks that are not full differ by one value.
            let blocks = shards.blocks().count() as i32;
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= blocks, "{counts:?}");
        }
    }

    #[test]
    fn a_process_alone_has_all_values() {
        let shards = Shards::new(&[3, 4], 1);
        assert_eq!(shards.of_process(0), [(0, 0..3), (1, 0..4)]);
        let own = Tensor::arange(7, (Kind::Float, tch::Device::Cpu));
        let whole = shards.collect(Peers::alone(), &own).unwrap();
        assert_eq!(Vec::<f32>::try_from(&whole[1]).unwrap(), [3.0, 4.0, 5.0, 6.0]);
    }
}
