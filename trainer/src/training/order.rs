//! The order of samples: which of them an optimiser step takes, which of these a process takes, and random numbers of each.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// A sample as an optimiser step takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The sample.
    pub sample: usize,
    /// The epoch in which it is taken.
    pub epoch: u64,
}

/// The order of a training stage. In each epoch every sample is taken once, in an order that follows from the seed and the epoch. Epochs
/// follow one another without a gap: the step in which one ends is filled with the first samples of the next one.
#[derive(Clone)]
pub struct Order {
    samples: usize,
    batch: usize,
    seed: u64,
    /// The latest epoch that was asked for, and its order.
    epoch: Option<u64>,
    shuffled: Vec<usize>,
    /// Which of how many processes this is.
    rank: usize,
    processes: usize,
}

impl Order {
    /// The order of this many samples, in batches of `batch`, or of all samples if they are fewer.
    pub fn new(samples: usize, batch: usize, seed: i64) -> Self {
        let batch = batch.min(samples);
        Self { samples, batch, seed: seed as u64, epoch: None, shuffled: Vec::new(), rank: 0, processes: 1 }
    }

    /// The same order, of which the process `rank` of so many takes a share of each step.
    pub fn of_process(self, rank: usize, processes: usize) -> Self {
        Self { rank, processes, ..self }
    }

    /// Number of optimiser steps after which so many epochs are over.
    pub fn steps_of(&self, epochs: u64) -> u64 {
        epochs.saturating_mul(self.samples as u64).div_ceil(self.batch.max(1) as u64).max(1)
    }

    /// Number of epochs that are over after so many optimiser steps.
    pub fn epochs_after(&self, steps: u64) -> f64 {
        steps as f64 * self.batch as f64 / self.samples.max(1) as f64
    }

    /// The samples of an optimiser step.
    pub fn of_step(&mut self, step: u64) -> Vec<Taken> {
        let first = step.saturating_mul(self.batch as u64);
        (first..first.saturating_add(self.batch as u64)).map(|position| self.at(position)).collect()
    }

    /// The sample at a position in the sequence of all epochs.
    fn at(&mut self, position: u64) -> Taken {
        let (epoch, within) = (position / self.samples as u64, (position % self.samples as u64) as usize);
        if self.epoch != Some(epoch) {
            self.shuffled = (0..self.samples).collect();
            self.shuffled.shuffle(&mut of_epoch(self.seed, epoch));
            self.epoch = Some(epoch);
        }
        Taken { sample: self.shuffled[within], epoch }
    }

    /// The samples of an optimiser step that this process takes.
    pub fn own_of_step(&mut self, step: u64) -> Vec<Taken> {
        share(&self.of_step(step), self.rank, self.processes).to_vec()
    }

    /// The samples of these optimiser steps that this process takes, one after the other, for those who read ahead.
    pub fn of_steps(mut self, steps: Range<u64>) -> impl Iterator<Item = usize> + Send + 'static {
        steps.flat_map(move |step| self.own_of_step(step)).map(|taken| taken.sample)
    }
}

/// The samples of a batch that the process `rank` of so many takes. The shares follow one another, differ by at most one sample, and are
/// the whole batch together.
pub fn share<T>(samples: &[T], rank: usize, processes: usize) -> &[T] {
    let from = |rank: usize| samples.len() * rank / processes.max(1);
    &samples[from(rank)..from(rank + 1)]
}

fn of_epoch(seed: u64, epoch: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ (epoch << 20))
}

/// Random numbers of an image in an epoch, which are the same in all steps of that epoch.
pub fn of_image(seed: i64, epoch: u64, image: usize) -> ChaCha8Rng {
    let mut rng = of_epoch(seed as u64, epoch);
    // The first stream is that of the order.
    rng.set_stream(1 + image as u64);
    rng
}

/// Random numbers of an optimiser step, which follow from the seed and the step.
///
/// A sample has numbers of its own, whatever other samples are in the batch, so that it is the same on one process and on many, and
/// whichever thread makes it.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// The numbers of a step of a training with this seed.
    pub fn new(seed: i64, step: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64((seed as u64).wrapping_mul(31).wrapping_add(step)))
    }

    /// The numbers of a process, from which the seed of libtorch's generator is drawn.
    pub fn of_process(&self, rank: usize) -> ChaCha8Rng {
        self.stream(rank as u64)
    }

    /// The numbers of a sample.
    pub fn of_sample(&self, sample: usize) -> ChaCha8Rng {
        self.stream(SAMPLES + sample as u64)
    }

    fn stream(&self, number: u64) -> ChaCha8Rng {
        let mut rng = self.0.clone();
        rng.set_stream(number);
        rng
    }
}

/// The stream of the first sample; those before are for processes.
const SAMPLES: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn an_epoch_takes_each_sample_once_and_the_next_one_has_another_order() {
        // The last step of an epoch has room for samples of the next one.
        for (samples, batch) in [(24, 4), (25, 4), (10, 7), (5, 5)] {
            let mut order = Order::new(samples, batch, 7);
            let steps = order.steps_of(3);
            assert_eq!(steps, (3 * samples).div_ceil(batch) as u64);
            assert_eq!(order.epochs_after(samples as u64), batch as f64);
            let taken: Vec<Taken> = (0..steps).flat_map(|step| order.of_step(step)).collect();
            assert_eq!(taken.len(), steps as usize * batch);
            let of_epoch = |epoch| taken.iter().filter(|taken| taken.epoch == epoch).map(|taken| taken.sample).collect::<Vec<_>>();
            for epoch in 0..3 {
                let mut sorted = of_epoch(epoch);
                sorted.sort_unstable();
                assert_eq!(sorted, (0..samples).collect::<Vec<_>>());
            }
            assert_ne!(of_epoch(0), of_epoch(1));
        }
    }

    #[test]
    fn a_step_takes_the_same_samples_whatever_was_asked_for_before() {
        let mut whole = Order::new(10, 3, 1);
        let taken: Vec<Vec<Taken>> = (0..12).map(|step| whole.of_step(step)).collect();
        let mut resumed = Order::new(10, 3, 1);
        assert_eq!(resumed.of_step(7), taken[7]);
        assert_eq!(resumed.of_step(2), taken[2]);
        let read: Vec<usize> = taken[3..].concat().iter().map(|taken| taken.sample).collect();
        assert_eq!(resumed.of_steps(3..12).collect::<Vec<_>>(), read);
    }

    #[test]
    fn the_shares_of_all_processes_are_the_batch() {
        let batch: Vec<usize> = (10..21).collect();
        for processes in 1..=11 {
            let shares: Vec<&[usize]> = (0..processes).map(|rank| share(&batch, rank, processes)).collect();
            assert_eq!(shares.concat(), batch);
            let sizes: Vec<usize> = shares.iter().map(|share| share.len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn a_sample_has_numbers_of_its_own_in_each_step() {
        let draw = |mut rng: ChaCha8Rng| rng.random_range(0..u64::MAX);
        let numbers = [
            draw(Draws::new(1, 1).of_sample(0)),
            draw(Draws::new(1, 1).of_sample(1)),
            draw(Draws::new(1, 2).of_sample(0)),
            draw(Draws::new(2, 1).of_sample(0)),
            draw(Draws::new(1, 1).of_process(0)),
            draw(Draws::new(1, 1).of_process(1)),
        ];
        let distinct: std::collections::BTreeSet<u64> = numbers.into_iter().collect();
        assert_eq!(distinct.len(), numbers.len());
        assert_eq!(draw(Draws::new(1, 1).of_sample(0)), numbers[0]);
    }

    #[test]
    fn fewer_samples_than_a_batch_are_one_batch() {
        let mut order = Order::new(3, 8, 1);
        assert_eq!((order.steps_of(1), order.of_step(5).len()), (1, 3));
    }
}
