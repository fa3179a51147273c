//! AdamW (Loshchilov and Hutter) with a learning rate per parameter group, gradient clipping, and a state that can be saved.

use super::Params;
use crate::distributed::{AdamW as Update, Peers, Shards};
use anyhow::Result;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Is added to the root of the second moment.
const EPSILON: f64 = 1e-8;

/// Settings of the optimiser, without the learning rate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether it applies to norms and biases, too.
    pub decays_all: bool,
    /// All gradients together are clipped to this norm; 0 means no clipping.
    pub clip: f64,
}

/// A trained parameter.
struct Trained {
    name: String,
    tensor: Tensor,
    factor: f64,
    decay: f64,
}

/// A part of a trained parameter, or the whole, with its moments.
struct Part {
    /// Index of the parameter.
    of: usize,
    /// Its values in the order of memory; `None` for all of them.
    values: Option<Range<i64>>,
    first: Tensor,
    second: Tensor,
}

/// The optimiser and its state.
pub struct AdamW<'a> {
    settings: Settings,
    trained: Vec<Trained>,
    /// What this process updates.
    parts: Vec<Part>,
    /// What the others update, if the optimiser is sharded.
    shards: Option<(Shards, Peers<'a>)>,
    step: i64,
}

impl<'a> AdamW<'a> {
    /// Makes an optimiser of all parameters with gradients; `factor` returns the factor of a parameter's learning rate.
    pub fn new(params: &Params, settings: Settings, factor: impl Fn(&str) -> f64) -> Self {
        Self::of_process(params, settings, Peers::alone(), factor)
    }

    /// The optimiser of one of several processes. It holds all moments, or a share of them if the settings of the group say so.
    pub fn of_process(params: &Params, settings: Settings, peers: Peers<'a>, factor: impl Fn(&str) -> f64) -> Self {
        let trained = params.named().into_iter().filter(|(_, t)| t.requires_grad());
        let trained = trained.map(|(name, tensor)| Trained {
            factor: factor(&name),
            decay: if settings.decays_all || tensor.dim() > 1 { settings.weight_decay } else { 0.0 },
            name,
            tensor,
        });
        let trained: Vec<Trained> = trained.collect();
        let sizes: Vec<i64> = trained.iter().map(|one| one.tensor.numel() as i64).collect();
        let shards = peers.settings().shard_optimiser.then(|| (Shards::new(&sizes, peers.count()), peers));
        let zeros = |x: &Tensor| x.zeros_like().detach();
        let parts = match &shards {
            None => trained.iter().enumerate().map(|(of, one)| (of, None, zeros(&one.tensor), zeros(&one.tensor))).collect::<Vec<_>>(),
            Some((shards, peers)) => {
                let zeros =
                    |one: &Trained, range: &Range<i64>| Tensor::zeros([range.end - range.start], (Kind::Float, one.tensor.device()));
                let own = shards.of_process(peers.rank()).into_iter();
                own.map(|(of, range)| (of, Some(range.clone()), zeros(&trained[of], &range), zeros(&trained[of], &range))).collect()
            }
        };
        let parts = parts.into_iter().map(|(of, values, first, second)| Part { of, values, first, second }).collect();
        Self { settings, trained, parts, shards, step: 0 }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.trained.iter().map(|one| one.tensor.numel()).sum()
    }

    /// Number of values that this process updates.
    pub fn own_parameters(&self) -> usize {
        self.parts.iter().map(|part| part.first.numel()).sum()
    }

    /// The trained parameters.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.trained.iter().map(|one| one.tensor.shallow_clone()).collect()
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) {
        for one in &mut self.trained {
            one.tensor.zero_grad();
        }
    }

    /// Takes a step with the present gradients and the learning rate `rate`. Returns the norm of the gradients before clipping; if it is
    /// not finite, parameters are unchanged. The gradients are clipped in place.
    ///
    /// # Errors
    /// If another process ended, which updates a share.
    pub fn step(&mut self, rate: f64) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let live: Vec<usize> = (0..self.trained.len()).filter(|&i| self.trained[i].tensor.grad().defined()).collect();
        let norms: Vec<Tensor> = live.iter().map(|&i| self.trained[i].tensor.grad().norm()).collect();
        let norm = if norms.is_empty() { 0.0 } else { Tensor::stack(&norms, 0).norm().double_value(&[]) };
        if !norm.is_finite() {
            return Ok(norm);
        }
        let shrink = if self.settings.clip > 0.0 && norm > self.settings.clip { self.settings.clip / norm } else { 1.0 };
        self.step += 1;
        // Parameters of one rate and decay are updated together.
        let mut groups: BTreeMap<[u64; 2], Vec<[Tensor; 4]>> = BTreeMap::new();
        for part in self.parts.iter().filter(|part| live.contains(&part.of)) {
            let one = &self.trained[part.of];
            let (rate, decay) = (rate * one.factor, one.decay);
            let own = |x: &Tensor| match &part.values {
                None => in_memory_order(x),
                Some(range) => piece(x, range),
            };
            let gradient = in_layout_of(&one.tensor, one.tensor.grad());
            let tensors = [own(&one.tensor), own(&gradient), in_memory_order(&part.first), in_memory_order(&part.second)];
            groups.entry([rate, decay].map(f64::to_bits)).or_default().push(tensors);
        }
        let Settings { beta1, beta2, .. } = self.settings;
        for (key, tensors) in groups {
            let [rate, decay] = key.map(f64::from_bits);
            let (betas, epsilon, step, divisor) = ([beta1, beta2], EPSILON, self.step, 1.0 / shrink);
            Update { rate, betas, decay, epsilon, step, divisor }.update(&tensors)?;
        }
        if let Some((shards, peers)) = &self.shards {
            shards.exchange(*peers, &self.trained.iter().map(|one| in_memory_order(&one.tensor)).collect::<Vec<_>>())?;
        }
        Ok(norm)
    }

    /// The moments and the number of steps, by name. If the optimiser is sharded, all processes call this, and the first one gets the
    /// moments of all.
    ///
    /// # Errors
    /// If another process ended, which holds a share.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for (kind, moment) in [("first", Part::first as fn(&Part) -> &Tensor), ("second", Part::second)] {
            let moments: Vec<Tensor> = self.parts.iter().map(|part| moment(part).shallow_clone()).collect();
            let moments = match &self.shards {
                None => moments,
                Some((shards, peers)) => {
                    let whole = shards.collect(*peers, &Tensor::cat(&moments, 0))?;
                    let shaped = self.trained.iter().zip(whole).map(|(one, values)| {
                        let moment = one.tensor.zeros_like().detach();
                        in_memory_order(&moment).copy_(&values);
                        moment
                    });
                    shaped.collect()
                }
            };
            state.extend(self.trained.iter().zip(moments).map(|(one, moment)| (format!("{kind}.{}", one.name), moment)));
        }
        state.push(("optimiser.step".into(), Tensor::from_slice(&[self.step])));
        Ok(state)
    }

    /// Takes the moments and the number of steps out of `state`.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn restore(&mut self, state: &mut HashMap<String, Tensor>) -> Result<(), String> {
        let mut take = |name: String, shape: &[i64]| {
            state.remove(&name).filter(|t| t.size() == shape).ok_or_else(|| format!("it has no {name} of the shape {shape:?}"))
        };
        self.step = take("optimiser.step".into(), &[1])?.int64_value(&[0]);
        for (of, one) in self.trained.iter().enumerate() {
            for (kind, moment) in [("first", Part::first as fn(&Part) -> &Tensor), ("second", Part::second)] {
                let stored = take(format!("{kind}.{}", one.name), &one.tensor.size())?;
                let whole = one.tensor.zeros_like().detach();
                whole.shallow_clone().copy_(&stored);
                for part in self.parts.iter().filter(|part| part.of == of) {
                    match &part.values {
                        None => moment(part).shallow_clone().copy_(&whole),
                        Some(range) => moment(part).shallow_clone().copy_(&piece(&whole, range)),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Part {
    fn first(&self) -> &Tensor {
        &self.first
    }

    fn second(&self) -> &Tensor {
        &self.second
    }
}

/// Values of a tensor in the order of memory. Parameters are dense.
fn in_memory_order(x: &Tensor) -> Tensor {
    let x = x.detach();
    flat(&x).unwrap_or_else(|| x.view(-1))
}

/// A tensor with its values in the same order in memory as those of another.
fn in_layout_of(other: &Tensor, x: Tensor) -> Tensor {
    if x.stride() == other.stride() || x.is_contiguous() && other.is_contiguous() {
        return x;
    }
    let copied = other.zeros_like().detach();
    copied.shallow_clone().copy_(&x);
    copied
}

fn piece(x: &Tensor, range: &Range<i64>) -> Tensor {
    in_memory_order(x).narrow(0, range.start, range.end - range.start)
}

/// The values in the order of memory, if they are dense; the channels of a kernel may be innermost. All tensors of a parameter have the
/// same order.
fn flat(x: &Tensor) -> Option<Tensor> {
    if x.is_contiguous() && !(x.dim() == 4 && x.size()[2] > 1) {
        return Some(x.view(-1));
    }
    let inner = if x.dim() == 4 { x.permute([0, 2, 3, 1]) } else { return None };
    inner.is_contiguous().then(|| inner.view(-1))
}
