//! What a process asks of the others. A process without others is alone: then every result is its argument.

use super::c10d::Gradients;
use super::group::Group;
use super::settings::Distributed;
use crate::training::order::share;
use anyhow::Result;
use tch::{Device, Tensor};

/// The processes of a training. All of them call the same functions in the same order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peers<'a>(Option<&'a Group>);

impl<'a> Peers<'a> {
    /// A process without others.
    pub fn alone() -> Self {
        Self(None)
    }

    /// The processes of a group.
    pub fn of(group: Option<&'a Group>) -> Self {
        Self(group)
    }

    /// Number of this process among all.
    pub fn rank(self) -> usize {
        self.0.map_or(0, |group| group.place.rank)
    }

    /// Number of processes.
    pub fn count(self) -> usize {
        self.0.map_or(1, |group| group.place.processes)
    }

    /// Whether this is the process that writes files and shows progress.
    pub fn is_first(self) -> bool {
        self.rank() == 0
    }

    /// The device of the group's tensors.
    pub fn device(self) -> Device {
        self.0.map_or(Device::Cpu, |group| group.device)
    }

    /// The settings of the group.
    pub fn settings(self) -> Distributed {
        self.0.map_or_else(Distributed::default, |group| group.settings)
    }

    /// The samples of a batch that this process takes.
    pub fn share<T>(self, batch: &[T]) -> &[T] {
        share(batch, self.rank(), self.count())
    }

    /// The sum over all processes, without gradient.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn sum(self, x: &Tensor) -> Result<Tensor> {
        let Some(group) = self.0 else { return Ok(x.detach()) };
        let sum = x.detach().contiguous().copy();
        group.member.sum(&sum)?;
        Ok(sum)
    }

    /// The sum over all processes, through which gradients flow. It never fails: if another process ended, the sums of gradients say so.
    pub fn sum_with_gradient(self, x: &Tensor) -> Tensor {
        let own = || x.shallow_clone();
        self.0.map_or_else(own, |group| group.member.sum_with_gradient(x).unwrap_or_else(|_| own()))
    }

    /// The sums of values over all processes.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn sums<const N: usize>(self, values: [f64; N]) -> Result<[f64; N]> {
        let Some(group) = self.0 else { return Ok(values) };
        let sums = Tensor::from_slice(&values).to_device(group.device);
        group.member.sum(&sums)?;
        let sums = sums.to_device(Device::Cpu);
        Ok(std::array::from_fn(|at| sums.double_value(&[at as i64])))
    }

    /// The sums of pairs of values over all processes.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn sum_all(self, pairs: &[[f64; 2]]) -> Result<Vec<[f64; 2]>> {
        let Some(group) = self.0 else { return Ok(pairs.into()) };
        let sums = Tensor::from_slice(pairs.as_flattened()).to_device(group.device);
        group.member.sum(&sums)?;
        Ok(Vec::<f64>::try_from(sums.to_device(Device::Cpu))?.as_chunks().0.into())
    }

    /// Waits until all processes have come here.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn meet(self) -> Result<()> {
        self.any(false).map(drop)
    }

    /// Whether a flag is set in any process.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn any(self, flag: bool) -> Result<bool> {
        let [set] = self.sums([f64::from(u8::from(flag))])?;
        Ok(set > 0.0)
    }

    /// The rows `[N, ..]` of all processes, in the order of ranks. Gradients flow to those of this process only. That gives the whole
    /// gradient of a loss that every process computes from all rows, because the gradients of parameters are summed over the processes.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn rows(self, x: &Tensor) -> Result<Tensor> {
        let Some(group) = self.0 else { return Ok(x.shallow_clone()) };
        let size = x.size();
        let of_process = |rows: i64| [&[rows], &size[1..]].concat();
        let counts = self.gather(&Tensor::from_slice(&[size[0]]).to_device(group.device))?;
        let counts = Vec::<i64>::try_from(counts.to_device(Device::Cpu))?;
        let most = counts.iter().copied().max().unwrap_or(0);
        let padded = Tensor::zeros(of_process(most), (x.kind(), x.device()));
        padded.narrow(0, 0, size[0]).copy_(&x.detach());
        let all = self.gather(&padded)?;
        let parts: Vec<Tensor> = counts
            .iter()
            .enumerate()
            .map(|(rank, &rows)| if rank == self.rank() { x.shallow_clone() } else { all.narrow(0, rank as i64 * most, rows) })
            .collect();
        Ok(Tensor::cat(&parts, 0))
    }

    /// Contiguous tensors of one shape, one after the other in the order of ranks.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn gather(self, own: &Tensor) -> Result<Tensor> {
        let Some(group) = self.0 else { return Ok(own.shallow_clone()) };
        let size = own.size();
        let all = Tensor::zeros([&[size[0] * self.count() as i64], &size[1..]].concat(), (own.kind(), own.device()));
        group.member.gather(&all, own)?;
        Ok(all)
    }

    /// Replaces the values of tensors by those of the first process.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn broadcast(self, tensors: &[Tensor]) -> Result<()> {
        let Some(group) = self.0 else { return Ok(()) };
        for tensor in tensors {
            let values = tensor.detach().contiguous().copy();
            group.member.broadcast(&values, 0)?;
            tch::no_grad(|| tensor.shallow_clone().copy_(&values));
        }
        Ok(())
    }

    /// Sums of the gradients of parameters; `None` if there are no others.
    ///
    /// # Errors
    /// If a parameter is not in fp32 on the group's device.
    pub fn gradients(self, parameters: &[Tensor]) -> Result<Option<Gradients>> {
        Ok(self.0.map(|group| group.gradients(parameters)).transpose()?)
    }

    /// The flag of the first process.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn of_first(self, flag: bool) -> Result<bool> {
        self.any(flag && self.is_first())
    }
}
