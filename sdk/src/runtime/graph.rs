//! A loaded graph, which several threads may run at the same time.

use super::error::RuntimeError;
use super::provider::Provider;
use super::stop::StopSignal;
use super::tensor::Tensor;
use super::view::over;
use crate::cause::source;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionInputValue};
use ort::value::{DynValue, Value, ValueType, ValueTypeMarker};
use std::ffi::CString;
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A graph that ONNX Runtime has loaded. Its weights are in memory once, and several threads may run it.
///
/// By ONNX Runtime's "High level design", several threads can call `Run()` of one session: kernels are stateless, and a run changes only
/// its own state. `ort` asks for `&mut Session`, because providers for GPUs crashed. So runs on the CPU overlap, and runs on any other
/// provider take turns.
pub struct Graph {
    /// The path of its file, for messages.
    name: String,
    session: Session,
    outputs: Vec<CString>,
    /// Held during a run; `None` if runs may overlap.
    one_at_a_time: Option<Mutex<()>>,
    /// Counts the runs in progress, for tests.
    #[cfg(test)]
    pub(crate) meeting: Option<std::sync::Arc<tests::Meeting>>,
}

impl Graph {
    pub(super) fn new(path: &Path, session: Session, provider: Provider) -> Result<Self, RuntimeError> {
        let failed = |e: std::ffi::NulError| RuntimeError::Graph { path: path.into(), source: source(e) };
        let outputs = session.outputs().iter().map(|output| CString::new(output.name())).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self {
            name: path.display().to_string(),
            session,
            outputs,
            one_at_a_time: (provider != Provider::Cpu).then(Mutex::default),
            #[cfg(test)]
            meeting: None,
        })
    }

    /// Checks that the graph has the inputs and outputs that are used.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`] for the first that is missing.
    pub fn check_names(&self, inputs: &[String], outputs: &[String]) -> Result<(), RuntimeError> {
        let has_output = |name: &str| self.session.outputs().iter().any(|output| output.name() == name);
        let missing = |what, name: &str| RuntimeError::Missing { graph: self.name.clone(), what, name: name.into() };
        if let Some(name) = inputs.iter().find(|name| !self.has_input(name)) {
            return Err(missing("input", name));
        }
        outputs.iter().find(|name| !has_output(name)).map_or(Ok(()), |name| Err(missing("output", name)))
    }

    /// Whether the graph has an input of this name.
    pub fn has_input(&self, name: &str) -> bool {
        self.session.inputs().iter().any(|input| input.name() == name)
    }

    /// Checks that dimensions of inputs and outputs, which exist, have the sizes of these fields of the manifest. What is allocated by a
    /// field is then no larger than what the graph takes or gives.
    ///
    /// # Errors
    /// [`RuntimeError::Size`] for the first that has another size, or none.
    pub fn check_sizes<N: AsRef<str>>(&self, sizes: &[(N, usize, &'static str, usize)]) -> Result<(), RuntimeError> {
        sizes.iter().try_for_each(|&(ref name, axis, field, expected)| {
            let mut values = self.session.inputs().iter().chain(self.session.outputs());
            let found = match values.find(|found| found.name() == name.as_ref()).map(|found| found.dtype()) {
                Some(ValueType::Tensor { shape, .. }) => shape.get(axis).copied().unwrap_or(-1),
                _ => -1,
            };
            if usize::try_from(found) == Ok(expected) {
                return Ok(());
            }
            Err(RuntimeError::Size { graph: self.name.clone(), field, expected, found })
        })
    }

    /// The symbolic name of an input's dimension; `None` if the dimension has no name.
    pub fn dimension(&self, input: &str, axis: usize) -> Option<&str> {
        match self.session.inputs().iter().find(|found| found.name() == input)?.dtype() {
            ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.get(axis).map(String::as_str),
            _ => None,
        }
    }

    /// Runs the graph. Several threads may do so at the same time.
    ///
    /// # Errors
    /// If an input is missing or has a wrong type or shape, or an operator fails.
    pub fn compute<N: AsRef<str>>(&self, inputs: &[(N, Tensor)]) -> Result<Outputs<'_>, RuntimeError> {
        self.run(&inputs.iter().map(|(name, tensor)| (name.as_ref(), (&tensor.0).into())).collect::<Vec<_>>())
    }

    /// [`Graph::compute`] on values of ONNX Runtime's binding, which may be borrowed.
    pub(crate) fn run<N: AsRef<str>>(&self, inputs: &[(N, SessionInputValue)]) -> Result<Outputs<'_>, RuntimeError> {
        self.run_until(inputs, None)
    }

    /// Runs the graph unless `stop` is requested.
    ///
    /// # Errors
    /// As [`Graph::run`], and if the run is stopped.
    pub(crate) fn run_until<N: AsRef<str>>(
        &self,
        inputs: &[(N, SessionInputValue)],
        stop: Option<&StopSignal>,
    ) -> Result<Outputs<'_>, RuntimeError> {
        let names = inputs.iter().map(|(name, _)| CString::new(name.as_ref())).collect::<Result<Vec<_>, _>>();
        let names = names.map_err(|e| self.failed(e))?;
        let [names, outputs] = [&names, &self.outputs].map(|names| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>());
        let values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
        let mut computed = vec![null_mut(); outputs.len()];
        let status = {
            let _turn = self.enter();
            // SAFETY: the session lives as long as `self`. Several threads may run it, or `_turn` keeps them apart (see `Graph`). Names
            // end with NUL, there are as many names as values, and all pointers are valid for the call. The options of the run are NULL
            // or outlive it; other threads only set their flag, which ONNX Runtime allows during a run. ONNX Runtime allocates outputs
            // that are NULL.
            #[allow(unsafe_code)]
            unsafe {
                (ort::api().Run)(
                    self.session.ptr().cast_mut(),
                    stop.map_or(null(), StopSignal::ptr),
                    names.as_ptr(),
                    values.as_ptr(),
                    values.len(),
                    outputs.as_ptr(),
                    outputs.len(),
                    computed.as_mut_ptr(),
                )
            }
        };
        // SAFETY: the status is what the call returned, and was not freed.
        #[allow(unsafe_code)]
        unsafe { ort::Error::result_from_status(status) }.map_err(|e| self.failed(e))?;
        let owned = |value| {
            let value = NonNull::new(value).ok_or_else(|| self.failed("ONNX Runtime made no output"))?;
            // SAFETY: the run made the value for its caller, and nothing else owns it. The value keeps the allocator of its memory.
            #[allow(unsafe_code)]
            Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
        };
        // All values are owned before a missing one is an error, so that none leaks.
        let values: Vec<_> = computed.into_iter().map(owned).collect();
        Ok(Outputs { graph: self, values: values.into_iter().collect::<Result<_, _>>()? })
    }

    /// Prepares a run whose inputs and outputs are bound to tensors of the caller.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn binding(&self) -> Result<Binding<'_>, RuntimeError> {
        Ok(Binding { graph: self, inner: self.session.create_binding().map_err(|e| self.failed(e))? })
    }

    /// Calls `work` with the allocator of this GPU's memory, which the graph's provider owns. No run is in progress meanwhile.
    pub(crate) fn with_memory_of<T>(&self, device: i32, work: impl FnOnce(&Allocator) -> ort::Result<T>) -> ort::Result<T> {
        let _turn = self.turn();
        let memory = MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)?;
        work(&Allocator::new(&self.session, memory)?)
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        // A run that panicked has not changed the session.
        self.one_at_a_time.as_ref().map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the turn of a run that begins now.
    fn enter(&self) -> Option<MutexGuard<'_, ()>> {
        let turn = self.turn();
        #[cfg(test)]
        self.meeting.iter().for_each(|meeting| meeting.arrive());
        turn
    }

    fn failed(&self, error: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Run { graph: self.name.clone(), source: source(error) }
    }
}

/// The outputs of a run of a [`Graph`].
pub struct Outputs<'g> {
    graph: &'g Graph,
    values: Vec<DynValue>,
}

impl Outputs<'_> {
    /// All outputs with their names, in the graph's order.
    fn iter(&self) -> impl Iterator<Item = (&str, &DynValue)> {
        self.graph.session.outputs().iter().map(|output| output.name()).zip(&self.values)
    }

    /// Shape and values of an output of type f32.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`] if the graph has none of this name; [`RuntimeError::Run`] if it has another type.
    pub fn get(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), RuntimeError> {
        let (shape, values) = self.value(name)?.try_extract_tensor::<f32>().map_err(|e| self.graph.failed(e))?;
        Ok((shape.iter().map(|&size| size as usize).collect(), values.to_vec()))
    }

    fn value(&self, name: &str) -> Result<&DynValue, RuntimeError> {
        let missing = || RuntimeError::Missing { graph: self.graph.name.clone(), what: "output", name: name.into() };
        self.iter().find(|&(found, _)| found == name).map(|(_, value)| value).ok_or_else(missing)
    }

    /// The values of an output, if it has the expected shape.
    ///
    /// # Errors
    /// [`RuntimeError::Shape`] if it has another shape.
    pub fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, RuntimeError> {
        let (shape, values) = self.value(name)?.try_extract_tensor::<f32>().map_err(|e| self.graph.failed(e))?;
        let expected: Vec<i64> = expected.iter().map(|&d| d as i64).collect();
        if shape[..] != expected[..] {
            let (graph, found) = (self.graph.name.clone(), shape.to_vec());
            return Err(RuntimeError::Shape { graph, tensor: name.into(), found, expected });
        }
        Ok(values.to_vec())
    }
}

/// One run of a [`Graph`], see [`Graph::binding`].
pub struct Binding<'g> {
    graph: &'g Graph,
    inner: IoBinding,
}

impl Binding<'_> {
    /// Sets an input.
    ///
    /// # Errors
    /// If the graph has no input of this name, or the value cannot be copied to the provider's device.
    pub fn set_input(&mut self, name: &str, value: &Tensor) -> Result<(), RuntimeError> {
        self.input(name, &value.0).map_err(|e| self.graph.failed(e))
    }

    /// Sets the tensor that an output is written to. It may be one of the inputs.
    ///
    /// # Errors
    /// If the graph has no output of this name.
    pub fn set_output(&mut self, name: &str, value: &mut Tensor) -> Result<(), RuntimeError> {
        self.output(name, &mut value.0).map_err(|e| self.graph.failed(e))
    }

    /// [`Binding::set_input`] with a value of `ort`.
    pub(crate) fn input<T: ValueTypeMarker + ?Sized>(&mut self, name: impl Into<String>, value: &Value<T>) -> ort::Result<()> {
        self.inner.bind_input(name, value)
    }

    /// [`Binding::set_output`] with a value of `ort`.
    pub(crate) fn output<T: ValueTypeMarker + ?Sized>(&mut self, name: impl Into<String>, value: &mut Value<T>) -> ort::Result<()> {
        self.inner.bind_output(name, value)
    }

    /// Runs the graph and returns the values of `output`, which has this shape and must not be bound before. Several threads may run a
    /// graph at the same time.
    ///
    /// # Errors
    /// If an input is missing, the output has another shape, or an operator fails.
    pub fn run(mut self, output: &str, shape: &[usize]) -> Result<Vec<f32>, RuntimeError> {
        let graph = self.graph;
        let mut values = Vec::new();
        let count = shape.iter().try_fold(1, |count: usize, &side| count.checked_mul(side)).unwrap_or(usize::MAX);
        values.try_reserve_exact(count).map_err(|e| graph.failed(e))?;
        values.resize(count, 0.0);
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        // SAFETY: the tensor is bound for this run only, and the binding is dropped before the values are read.
        #[allow(unsafe_code)]
        let tensor = unsafe { over(&mut values, &shape) };
        let bound = tensor.and_then(|mut tensor| self.inner.bind_output(output, &mut tensor));
        bound.map_err(|e| graph.failed(e))?;
        let status = {
            let _turn = graph.enter();
            // SAFETY: the binding belongs to this session, which lives as long as `graph`, and no other thread has it. Several threads
            // may run a session, or `_turn` keeps them apart (see `Graph`).
            #[allow(unsafe_code)]
            unsafe {
                (ort::api().RunWithBinding)(graph.session.ptr().cast_mut(), null(), self.inner.ptr())
            }
        };
        // SAFETY: the status is what the call returned, and was not freed.
        #[allow(unsafe_code)]
        let done = unsafe { ort::Error::result_from_status(status) };
        drop(self.inner);
        done.map(|()| values).map_err(|e| graph.failed(e))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Condvar;
    use std::time::Duration;

    /// A meeting point of runs, between their turn and the call of ONNX Runtime: each waits until the expected number has arrived.
    pub(crate) struct Meeting {
        expected: usize,
        inside: Mutex<usize>,
        arrived: Condvar,
    }

    impl Meeting {
        pub fn of(expected: usize) -> Self {
            Self { expected, inside: Mutex::new(0), arrived: Condvar::new() }
        }

        /// How many runs have arrived.
        pub fn present(&self) -> usize {
            *self.inside.lock().unwrap()
        }

        /// Returns when all have arrived. Runs that take turns never meet.
        pub fn arrive(&self) {
            let mut inside = self.inside.lock().unwrap();
            *inside += 1;
            self.arrived.notify_all();
            let waited = self.arrived.wait_timeout_while(inside, Duration::from_secs(600), |inside| *inside < self.expected);
            let (inside, waited) = waited.unwrap();
            let count = *inside;
            drop(inside);
            assert!(!waited.timed_out(), "{count} of {} runs came to be in flight at the same time", self.expected);
        }
    }
}
