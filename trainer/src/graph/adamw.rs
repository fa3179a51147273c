//! AdamW (Loshchilov and Hutter) with a learning rate per parameter group, gradient clipping, and a state that can be saved.

use super::{Params, ParamsError};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Settings of the optimiser, without the learning rate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
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
            // Weight decay does not apply to norms and biases.
            decay: if tensor.dim() > 1 { settings.weight_decay } else { 0.0 },
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

    /// Saves the moments and the number of steps.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ParamsError> {
        let state = Params::create(Device::Cpu);
        state.insert("step", Tensor::from_slice(&[self.step as f32]));
        for one in &self.trained {
            state.insert(&format!("first.{}", one.name), one.first.shallow_clone());
            state.insert(&format!("second.{}", one.name), one.second.shallow_clone());
        }
        state.save(path, |_| true)
    }

    /// Loads the moments and the number of steps.
    ///
    /// # Errors
    /// If the file cannot be read or belongs to other parameters.
    pub fn load(&mut self, path: &Path) -> Result<(), ParamsError> {
        let state = Params::load(path, Device::Cpu)?;
        let step = state.weight("step", &[1], super::Init::Zeros);
        for one in &mut self.trained {
            let device = one.tensor.device();
            for (kind, moment) in [("first", &mut one.first), ("second", &mut one.second)] {
                let loaded = state.weight(&format!("{kind}.{}", one.name), &one.tensor.size(), super::Init::Zeros);
                *moment = loaded.to_kind(Kind::Float).to_device(device);
            }
        }
        state.check(path)?;
        self.step = step.double_value(&[0]) as i64;
        Ok(())
    }
}
