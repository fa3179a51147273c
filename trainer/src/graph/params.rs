//! Named parameters of models.

use super::error::ParamsError;
use super::source::{Safetensors, Source};
use anatomix::parts::files;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Initialisation of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Normal distribution with this standard deviation.
    Normal(f64),
    /// Xavier uniform.
    Xavier,
    /// Kaiming normal for ReLU with `fan_out`, as in torchvision's ResNet.
    Kaiming,
    /// Uniform between plus and minus `1 / sqrt(fan_in)`, as in PyTorch's linear layers.
    Fan,
}

/// Named tensors. A requested parameter that is missing is created if `open`, otherwise it is an error of [`Params::check`].
#[derive(Debug)]
pub struct Params {
    tensors: RefCell<BTreeMap<String, Tensor>>,
    /// Tensors that are read at each request. Tensors in memory with the same name take precedence.
    source: Option<Box<dyn Source>>,
    requested: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
    open: bool,
    device: Device,
}

impl Params {
    /// Makes an empty, open set of parameters. Running a model creates its parameters.
    pub fn create(device: Device) -> Self {
        let open = true;
        Self { tensors: Default::default(), source: None, requested: Default::default(), problems: Default::default(), open, device }
    }

    /// Loads the parameters of a safetensors file, in fp32.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load(path: &Path, device: Device) -> Result<Self, ParamsError> {
        // A pipe or a device would be read without end.
        files::open(path).map_err(|e| ParamsError::File { path: path.into(), message: e.to_string() })?;
        let tensors = Tensor::read_safetensors(path).map_err(|e| ParamsError::File { path: path.into(), message: e.to_string() })?;
        let tensors = tensors.into_iter().map(|(name, t)| (name, channels_last(t.to_kind(Kind::Float).to_device(device)))).collect();
        Ok(Self { tensors: RefCell::new(tensors), open: false, ..Self::create(device) })
    }

    /// Opens safetensors files of any floating-point type. A tensor is read from its file, as fp32, at each request, so that models larger
    /// than memory can be exported. Later files override earlier ones.
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

    /// Makes parameters that are read from `source`.
    pub(crate) fn over(source: Box<dyn Source>) -> Self {
        Self { source: Some(source), open: false, ..Self::create(Device::Cpu) }
    }

    /// Sets a source for parameters that are not in memory.
    pub(crate) fn with_source(self, source: Box<dyn Source>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Lets missing parameters be created, such as adapters of a loaded model.
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Device of the tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensor of this name, from memory or the source.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let in_memory = self.tensors.borrow().get(name).map(Tensor::shallow_clone);
        in_memory.or_else(|| {
            let rows = self.source.as_ref()?.shape(name)?.first().copied().unwrap_or(1);
            self.read(name, 0, rows).map(channels_last)
        })
    }

    /// The shape of the tensor of this name. No values are read.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let in_memory = self.tensors.borrow().get(name).map(Tensor::size);
        in_memory.or_else(|| Some(self.source.as_ref()?.shape(name)?.to_vec()))
    }

    /// Whether the tensor of this name is read from the source at each request.
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

    /// Inserts or replaces a tensor.
    pub fn insert(&self, name: &str, tensor: Tensor) {
        self.tensors.borrow_mut().insert(name.into(), channels_last(tensor));
    }

    /// Requests a parameter: it is created if it is missing, or its shape is checked. On an error the result is zeros.
    pub fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let found = if self.declare(name, shape, init) { self.get(name) } else { None };
        found.unwrap_or_else(|| Tensor::zeros(shape, (Kind::Float, self.device)))
    }

    /// Like [`Params::weight`], for `count` rows of the parameter from row `from` on. Other rows are not read.
    pub fn rows(&self, name: &str, shape: &[i64], init: Init, from: i64, count: i64) -> Tensor {
        let found = match self.declare(name, shape, init) {
            true if self.is_lazy(name) => self.read(name, from, count),
            true => self.get(name).map(|t| t.narrow(0, from, count)),
            false => None,
        };
        let shape = [&[count], shape.get(1..).unwrap_or_default()].concat();
        found.unwrap_or_else(|| Tensor::zeros(shape, (Kind::Float, self.device)))
    }

    /// Creates or checks a requested parameter. Returns whether it can be used; a problem is recorded for [`Params::check`].
    fn declare(&self, name: &str, shape: &[i64], init: Init) -> bool {
        self.requested.borrow_mut().insert(name.into());
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
        // A large tensor is requested once per block, but its problem is listed once.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
        false
    }

    /// Checks, after a run of the model, that all requested parameters could be used and that all parameters were requested.
    ///
    /// # Errors
    /// [`ParamsError::Misfit`], which lists all parameters that are missing, extra or of another shape.
    pub fn check(&self, path: &Path) -> Result<(), ParamsError> {
        let mut problems = self.problems.borrow().clone();
        let requested = self.requested.borrow();
        let mut names: BTreeSet<String> = self.tensors.borrow().keys().cloned().collect();
        names.extend(self.source.iter().flat_map(|s| s.names()));
        problems.extend(names.iter().filter(|n| !requested.contains(*n)).map(|n| format!("{n} is not part of the model")));
        if problems.is_empty() { Ok(()) } else { Err(ParamsError::Misfit { path: path.into(), problems }) }
    }

    /// Names and tensors in memory, sorted by name.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.borrow().iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
    }

    /// Enables gradients for the parameters for which `trainable` is true, and freezes the others.
    pub fn train(&self, trainable: impl Fn(&str) -> bool) {
        for (name, tensor) in self.tensors.borrow_mut().iter_mut() {
            *tensor = tensor.detach().set_requires_grad(trainable(name));
        }
    }

    /// Rounds frozen matrices for which `chosen` is true to bf16, which halves their memory. Products in bf16 would round them each time.
    pub fn reduce_frozen(&self, chosen: impl Fn(&str) -> bool) {
        for (name, tensor) in self.tensors.borrow_mut().iter_mut() {
            if tensor.dim() > 1 && !tensor.requires_grad() && chosen(name) {
                *tensor = tensor.to_kind(Kind::BFloat16);
            }
        }
    }

    /// Replaces the values of the parameters that are in a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read, or a parameter of it is missing here or has another shape.
    pub fn overwrite(&self, path: &Path) -> Result<(), ParamsError> {
        let tensors = Tensor::read_safetensors(path).map_err(|e| ParamsError::File { path: path.into(), message: e.to_string() })?;
        let mut problems = Vec::new();
        for (name, stored) in tensors {
            match self.tensors.borrow().get(&name) {
                Some(tensor) if tensor.size() == stored.size() => tch::no_grad(|| tensor.shallow_clone().copy_(&stored)),
                _ => problems.push(format!("{name} is not part of the model, or has another shape")),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ParamsError::Misfit { path: path.into(), problems }) }
    }

    /// Saves the parameters for which `chosen` is true, by [`write_tensors`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), ParamsError> {
        let tensors: Vec<(String, Tensor)> = self.named().into_iter().filter(|(name, _)| chosen(name)).collect();
        write_tensors(&tensors, path)
    }
}

/// Writes tensors to a safetensors file that appears whole or not at all, and is on disk when it appears.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors(tensors: &[(String, Tensor)], path: &Path) -> Result<(), ParamsError> {
    let tensors: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.detach().to_device(Device::Cpu).contiguous())).collect();
    let partial = path.with_extension("partial");
    let written = Tensor::write_safetensors(&tensors, &partial)
        .map_err(|e| e.to_string())
        .and_then(|()| std::fs::File::open(&partial).and_then(|file| file.sync_all()).map_err(|e| e.to_string()))
        .and_then(|()| std::fs::rename(&partial, path).map_err(|e| e.to_string()));
    written.map_err(|message| {
        let _ = std::fs::remove_file(&partial);
        ParamsError::File { path: path.into(), message }
    })
}

/// Converts convolution kernels to the layout with the channels innermost. The activations then have it, too, which makes training about
/// three times as fast on a CPU.
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
