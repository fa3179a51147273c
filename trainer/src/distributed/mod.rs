//! Training on several processes: on the GPUs of a machine, and on several machines.
//!
//! `torchrun` starts the processes and says to each who it is ([`Place`]). Each holds all parameters, takes its share of every batch, and
//! the gradients are summed over all processes ([`Gradients`]) by torch's own c10d, so that a step is that of one process with the whole
//! batch. Stages and losses see a [`Peers`], which is alone in a process without others.

mod beats;
mod c10d;
mod failure;
mod group;
mod peers;
mod place;
mod settings;
mod shards;

pub use c10d::{AdamW, C10dError, Gradients, host_name};
pub use group::Group;
pub use peers::Peers;
pub use place::Place;
pub use settings::Distributed;
pub use shards::Shards;
