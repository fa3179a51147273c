//! Named parameters: created, loaded, checked, saved.

use super::error::ParamsError;
use super::source::{Safetensors, Source};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Normal with this deviation.
    Normal(f64),
    /// Xavier uniform over the last two dimensions.
    Xavier,
    /// Kaiming normal for ReLU over the outputs, as ResNet starts.
    Kaiming,
    /// Uniform within one over the root of the inputs, as PyTorch's linear layers start.
    Fan,
}

/// Named tensors. While `open`, a name that is asked for and not there is created; otherwise that is an error.
#[derive(Debug)]
pub struct Params {
    tensors: RefCell<BTreeMap<String, Tensor>>,
    /// Tensors that are read each time they are asked for; those in memory stand before them.
    source: Option<Box<dyn Source>>,
    asked: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
    open: bool,
    device: Device,
}

impl Params {
    /// No parameters yet; a model's first run creates them.
    pub fn create(device: Device) -> Self {
        let open = true;
        Self { tensors: Default::default(), source: None, asked: Default::default(), problems: Default::default(), open, device }
    }

    /// The parameters of a safetensors file, in fp32.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(path: &Path, device: Device) -> Result<Self, ParamsError> {
        let tensors = Tensor::read_safetensors(path).map_err(|e| ParamsError::File { path: path.into(), message: e.to_string() })?;
        let tensors = tensors.into_iter().map(|(name, t)| (name, channels_last(t.to_kind(Kind::Float).to_device(device)))).collect();
        Ok(Self { tensors: RefCell::new(tensors), open: false, ..Self::create(device) })
    }

    /// The parameters of safetensors files of any floating point type, for reading only: a tensor comes from its file, in
    /// fp32, each time it is asked for, so that models larger than memory can be exported. Later files override earlier ones.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged.
    pub fn lazy<P: AsRef<Path>>(paths: &[P]) -> Result<Self, ParamsError> {
        let mut files = Safetensors::default();
        for path in paths {
            files.add(path.as_ref())?;
        }
        Ok(Self::over(Box::new(files)))
    }

    /// Parameters that are read from a source.
    pub(crate) fn over(source: Box<dyn Source>) -> Self {
        Self { source: Some(source), open: false, ..Self::create(Device::Cpu) }
    }

    /// The same parameters, with those that are not in memory read from a source.
    pub(crate) fn with_source(self, source: Box<dyn Source>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Lets names that are not there be created (an adapter on a loaded model).
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Where the tensors are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensor of this name, if it is there.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let held = self.tensors.borrow().get(name).map(Tensor::shallow_clone);
        held.or_else(|| {
            let rows = self.source.as_ref()?.shape(name)?.first().copied().unwrap_or(1);
            self.read(name, 0, rows).map(channels_last)
        })
    }

    /// The shape of the tensor of this name, if it is there; nothing is read for it.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let held = self.tensors.borrow().get(name).map(Tensor::size);
        held.or_else(|| Some(self.source.as_ref()?.shape(name)?.to_vec()))
    }

    /// Whether the tensor of this name would be read from a file.
    pub fn is_lazy(&self, name: &str) -> bool {
        !self.tensors.borrow().contains_key(name) && self.source.as_ref().is_some_and(|s| s.shape(name).is_some())
    }

    fn read(&self, name: &str, from: i64, count: i64) -> Option<Tensor> {
        match self.source.as_ref()?.rows(name, from, count) {
            Ok(tensor) => Some(tensor.to_device(self.device)),
            Err(error) => {
                self.problems.borrow_mut().push(format!("{name} cannot be read: {error}"));
                None
            }
        }
    }

    /// Puts or replaces a tensor.
    pub fn insert(&self, name: &str, tensor: Tensor) {
        self.tensors.borrow_mut().insert(name.into(), channels_last(tensor));
    }

    /// The parameter of this name, created or checked.
    pub fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let found = if self.declare(name, shape, init) { self.get(name) } else { None };
        found.unwrap_or_else(|| Tensor::zeros(shape, (Kind::Float, self.device)))
    }

    /// `count` rows from `from` on of the parameter of this name, created or checked; no others are read.
    pub fn rows(&self, name: &str, shape: &[i64], init: Init, from: i64, count: i64) -> Tensor {
        let found = match self.declare(name, shape, init) {
            true if self.is_lazy(name) => self.read(name, from, count),
            true => self.get(name).map(|t| t.narrow(0, from, count)),
            false => None,
        };
        let shape = [&[count], shape.get(1..).unwrap_or_default()].concat();
        found.unwrap_or_else(|| Tensor::zeros(shape, (Kind::Float, self.device)))
    }

    /// Whether the parameter is there and fits, or could be created. What is wrong is kept for [`Params::check`].
    fn declare(&self, name: &str, shape: &[i64], init: Init) -> bool {
        self.asked.borrow_mut().insert(name.into());
        let problem = match self.shape(name) {
            Some(found) if found == shape => return true,
            Some(found) => format!("{name} is {found:?} instead of {shape:?}"),
            None if self.open => {
                self.insert(name, initial(shape, init, self.device));
                return true;
            }
            None => format!("{name} is missing"),
        };
        let mut problems = self.problems.borrow_mut();
        // A large tensor is asked for once for each block.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
        false
    }

    /// After a model's run: every name fitted and none was left over.
    ///
    /// # Errors
    /// [`ParamsError::Misfit`] with all that do not fit.
    pub fn check(&self, path: &Path) -> Result<(), ParamsError> {
        let mut problems = self.problems.borrow().clone();
        let asked = self.asked.borrow();
        let mut names: BTreeSet<String> = self.tensors.borrow().keys().cloned().collect();
        names.extend(self.source.iter().flat_map(|s| s.names()));
        problems.extend(names.iter().filter(|n| !asked.contains(*n)).map(|n| format!("{n} is not part of the model")));
        if problems.is_empty() { Ok(()) } else { Err(ParamsError::Misfit { path: path.into(), problems }) }
    }

    /// Names in order, with their tensors; those that are in memory.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.borrow().iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
    }

    /// Marks exactly the parameters that `trainable` chooses as trained; the others are frozen.
    pub fn train(&self, trainable: impl Fn(&str) -> bool) {
        for (name, tensor) in self.tensors.borrow_mut().iter_mut() {
            *tensor = tensor.detach().set_requires_grad(trainable(name));
        }
    }

    /// Saves the parameters that `chosen` chooses, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), ParamsError> {
        let tensors: Vec<(String, Tensor)> =
            self.named().into_iter().filter(|(n, _)| chosen(n)).map(|(n, t)| (n, t.detach().to_device(Device::Cpu).contiguous())).collect();
        let partial = path.with_extension("partial");
        Tensor::write_safetensors(&tensors, &partial)
            .map_err(|e| e.to_string())
            .and_then(|()| std::fs::rename(&partial, path).map_err(|e| e.to_string()))
            .map_err(|message| ParamsError::File { path: path.into(), message })
    }
}

/// Kernels of convolutions lie with their channels innermost; activations follow, and the CPU is three times as fast.
fn channels_last(tensor: Tensor) -> Tensor {
    if tensor.dim() == 4 && tensor.size()[2] > 1 { tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { tensor }
}

fn initial(shape: &[i64], init: Init, device: Device) -> Tensor {
    let options = (Kind::Float, device);
    let receptive: i64 = shape.iter().skip(2).product();
    let (outputs, inputs) = (shape[0] * receptive, shape.get(1).copied().unwrap_or(1) * receptive);
    let uniform = |limit: f64| Tensor::empty(shape, options).uniform_(-limit, limit);
    match init {
        Init::Zeros => Tensor::zeros(shape, options),
        Init::Ones => Tensor::ones(shape, options),
        Init::Normal(deviation) => Tensor::randn(shape, options) * deviation,
        Init::Xavier => uniform((6.0 / (inputs + outputs) as f64).sqrt()),
        Init::Kaiming => Tensor::randn(shape, options) * (2.0 / outputs as f64).sqrt(),
        Init::Fan => uniform(1.0 / (inputs as f64).sqrt()),
    }
}
