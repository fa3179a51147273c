//! AdamW (Loshchilov and Hutter) with a learning rate per parameter group, gradient clipping, and a state that can be saved.

use super::Params;
use std::collections::HashMap;
use tch::Tensor;

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

/// A trained parameter with its moments.
struct Trained {
    name: String,
    tensor: Tensor,
    first: Tensor,
    second: Tensor,
    factor: f64,
    decay: f64,
}

/// The optimiser and its state.
pub struct AdamW {
    settings: Settings,
    trained: Vec<Trained>,
    step: i64,
}

impl AdamW {
    /// Makes an optimiser of all parameters with gradients; `factor` returns the factor of a parameter's learning rate.
    pub fn new(params: &Params, settings: Settings, factor: impl Fn(&str) -> f64) -> Self {
        let trained = params.named().into_iter().filter(|(_, t)| t.requires_grad());
        let trained = trained.map(|(name, tensor)| Trained {
            factor: factor(&name),
            decay: if settings.decays_all || tensor.dim() > 1 { settings.weight_decay } else { 0.0 },
            first: tensor.zeros_like().detach(),
            second: tensor.zeros_like().detach(),
            name,
            tensor,
        });
        Self { settings, trained: trained.collect(), step: 0 }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.trained.iter().map(|s| s.tensor.numel()).sum()
    }

    /// Computes the gradients of `loss` and takes a step with the learning rate `rate`. Returns the norm of the gradients before clipping;
    /// if it is not finite, parameters are unchanged.
    pub fn step(&mut self, loss: &Tensor, rate: f64) -> f64 {
        for one in &mut self.trained {
            one.tensor.zero_grad();
        }
        loss.backward();
        let _guard = tch::no_grad_guard();
        let live: Vec<usize> = (0..self.trained.len()).filter(|&i| self.trained[i].tensor.grad().defined()).collect();
        let norms: Vec<Tensor> = live.iter().map(|&i| self.trained[i].tensor.grad().norm()).collect();
        let norm = if norms.is_empty() { 0.0 } else { Tensor::stack(&norms, 0).norm().double_value(&[]) };
        if !norm.is_finite() {
            return norm;
        }
        let shrink = if self.settings.clip > 0.0 && norm > self.settings.clip { self.settings.clip / norm } else { 1.0 };
        self.step += 1;
        let Settings { beta1, beta2, .. } = self.settings;
        let correction = (1.0 - beta2.powi(self.step as i32)).sqrt();
        for i in live {
            let one = &mut self.trained[i];
            let gradient = one.tensor.grad() * shrink;
            let rate = rate * one.factor;
            let _ = one.first.g_mul_scalar_(beta1).g_add_(&(&gradient * (1.0 - beta1)));
            let _ = one.second.g_mul_scalar_(beta2).addcmul_(&gradient, &(&gradient * (1.0 - beta2)));
            let scale = one.second.sqrt() / correction + 1e-8;
            let _ = one.tensor.g_mul_scalar_(1.0 - rate * one.decay);
            let _ = one.tensor.g_sub_(&(&one.first / scale * (rate / (1.0 - beta1.powi(self.step as i32)))));
        }
        norm
    }

    /// The moments and the number of steps, by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let moments = self.trained.iter().flat_map(|one| {
            [("first", &one.first), ("second", &one.second)].map(|(kind, moment)| (format!("{kind}.{}", one.name), moment.shallow_clone()))
        });
        moments.chain([("optimiser.step".into(), Tensor::from_slice(&[self.step]))]).collect()
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
        for one in &mut self.trained {
            let size = one.tensor.size();
            for (kind, moment) in [("first", &mut one.first), ("second", &mut one.second)] {
                let stored = take(format!("{kind}.{}", one.name), &size)?;
                moment.copy_(&stored);
            }
        }
        Ok(())
    }
}
