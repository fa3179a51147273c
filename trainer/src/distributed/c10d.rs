//! Calls of torch's c10d, through the C++ functions in the folder `c10d`, which are compiled against the libtorch in use.
//!
//! tch has no c10d, no hooks of gradients and no fused AdamW. Everything else of this room is safe Rust.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

/// Longest value of a key that is read, in bytes.
const MAX_VALUE: usize = 4096;

unsafe extern "C" {
    fn anatomix_group_error() -> *const c_char;
    fn anatomix_store_open(host: *const c_char, port: u16, serve: c_int, prefix: *const c_char, timeout: i64) -> *mut c_void;
    fn anatomix_store_close(store: *mut c_void);
    fn anatomix_store_set(store: *mut c_void, key: *const c_char, value: *const u8, length: usize) -> c_int;
    fn anatomix_store_claim(store: *mut c_void, key: *const c_char, value: *const u8, length: usize, out: *mut u8, capacity: usize) -> i64;
    fn anatomix_store_get(store: *mut c_void, key: *const c_char, out: *mut u8, capacity: usize) -> i64;
    fn anatomix_group_join(store: *mut c_void, rank: c_int, processes: c_int, cuda: c_int, timeout: i64) -> *mut c_void;
    fn anatomix_group_leave(group: *mut c_void);
    fn anatomix_group_sum(group: *mut c_void, tensor: *const C_tensor) -> c_int;
    fn anatomix_group_sum_with_gradient(group: *mut c_void, tensor: *const C_tensor) -> *mut C_tensor;
    fn anatomix_group_broadcast(group: *mut c_void, tensor: *const C_tensor, from: c_int) -> c_int;
    fn anatomix_group_gather(group: *mut c_void, all: *const C_tensor, own: *const C_tensor) -> c_int;
    fn anatomix_adamw(
        tensors: *const *const C_tensor,
        count: usize,
        rate: f64,
        beta1: f64,
        beta2: f64,
        decay: f64,
        epsilon: f64,
        step: i64,
        divisor: f64,
    ) -> c_int;
    fn anatomix_host_name(out: *mut c_char, capacity: usize) -> c_int;
    fn anatomix_gradients_new(group: *mut c_void, tensors: *const *const C_tensor, count: usize, bytes: i64, overlap: c_int)
    -> *mut c_void;
    fn anatomix_gradients_delete(gradients: *mut c_void);
    fn anatomix_gradients_begin(gradients: *mut c_void) -> c_int;
    fn anatomix_gradients_finish(gradients: *mut c_void) -> c_int;
}

/// A failure of c10d, such as a connection that another process closed, or one that took too long.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct C10dError(String);

impl C10dError {
    fn latest() -> Self {
        // SAFETY: the function returns a string that ends with 0 and lives until the next failed call of this thread.
        let text = unsafe { CStr::from_ptr(anatomix_group_error()) };
        // libtorch appends the C++ functions that were active.
        let text = text.to_string_lossy();
        Self(text.lines().next().unwrap_or_default().chars().take(MAX_VALUE).collect())
    }
}

fn checked(status: c_int) -> Result<(), C10dError> {
    if status == 0 { Ok(()) } else { Err(C10dError::latest()) }
}

fn text(text: &str) -> Result<CString, C10dError> {
    CString::new(text).map_err(|_| C10dError(format!("{text:?} has a zero byte")))
}

/// Name of this machine.
pub fn host_name() -> String {
    let mut bytes = vec![0u8; 256];
    // SAFETY: the function writes at most one byte less than the vector has, so that the last one stays 0.
    let status = unsafe { anatomix_host_name(bytes.as_mut_ptr().cast(), bytes.len() - 1) };
    let name = CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned());
    name.ok().filter(|name| status == 0 && !name.is_empty()).unwrap_or_else(|| "unknown host".into())
}

/// Keys and values that all processes of a group see.
#[derive(Debug)]
pub struct Store(NonNull<c_void>);

// SAFETY: the store belongs to no thread; it is not shared by several (it is not `Sync`).
unsafe impl Send for Store {}

impl Store {
    /// Connects to the store at this address, which the process that `serves` holds. Waits for it up to `timeout`.
    ///
    /// # Errors
    /// If it cannot be reached, or the address is in use.
    pub fn open(host: &str, port: u16, serves: bool, prefix: &str, timeout: Duration) -> Result<Self, C10dError> {
        let (host, prefix) = (text(host)?, text(prefix)?);
        // SAFETY: both strings end with 0 and live during the call.
        let store = unsafe { anatomix_store_open(host.as_ptr(), port, serves.into(), prefix.as_ptr(), milliseconds(timeout)) };
        NonNull::new(store).map(Self).ok_or_else(C10dError::latest)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub fn set(&self, key: &str, value: &str) -> Result<(), C10dError> {
        let key = text(key)?;
        // SAFETY: the store is open; key and value live during the call.
        checked(unsafe { anatomix_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Sets a key if it has no value, and returns the value that it has then.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub fn claim(&self, key: &str, value: &str) -> Result<String, C10dError> {
        let key = text(key)?;
        let value = &value.as_bytes()[..value.len().min(MAX_VALUE)];
        // SAFETY: the store is open; key and value live during the call, which writes at most the given number of bytes.
        self.filled(|out, capacity| unsafe {
            anatomix_store_claim(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len(), out, capacity)
        })
        .map(Option::unwrap_or_default)
    }

    /// The value of a key; `None` if it has none.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub fn get(&self, key: &str) -> Result<Option<String>, C10dError> {
        let key = text(key)?;
        // SAFETY: the store is open; the key lives during the call, which writes at most the given number of bytes.
        self.filled(|out, capacity| unsafe { anatomix_store_get(self.0.as_ptr(), key.as_ptr(), out, capacity) })
    }

    fn filled(&self, call: impl Fn(*mut u8, usize) -> i64) -> Result<Option<String>, C10dError> {
        let mut bytes = vec![0u8; MAX_VALUE];
        match call(bytes.as_mut_ptr(), bytes.len()) {
            0 => Ok(None),
            length if length > 0 => {
                bytes.truncate(length.min(MAX_VALUE as i64) as usize);
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            _ => Err(C10dError::latest()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the store is open, and nothing uses it afterwards.
        unsafe { anatomix_store_close(self.0.as_ptr()) }
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A member of a group of processes. All of them call the same functions in the same order, with tensors of the same shape.
#[derive(Debug)]
pub struct Member {
    group: NonNull<c_void>,
    /// Calls of one group must not be made by several threads.
    _one_thread: PhantomData<*mut ()>,
}

impl Member {
    /// Joins a group: by NCCL for a CUDA device, otherwise by Gloo. Calls fail after `timeout`.
    ///
    /// # Errors
    /// If the other processes do not join.
    pub fn join(store: &Store, rank: usize, processes: usize, device: Device, timeout: Duration) -> Result<Self, C10dError> {
        let cuda = if let Device::Cuda(number) = device { number as c_int } else { -1 };
        // SAFETY: the store is open.
        let group = unsafe { anatomix_group_join(store.0.as_ptr(), rank as c_int, processes as c_int, cuda, milliseconds(timeout)) };
        let group = NonNull::new(group).ok_or_else(C10dError::latest)?;
        Ok(Self { group, _one_thread: PhantomData })
    }

    /// Replaces a contiguous tensor by the sum over all processes.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn sum(&self, tensor: &Tensor) -> Result<(), C10dError> {
        // SAFETY: group and tensor live during the call.
        checked(unsafe { anatomix_group_sum(self.group.as_ptr(), tensor.as_ptr()) })
    }

    /// The sum over all processes, through which gradients flow: that of a process is the sum of the gradients of all. The group must live
    /// until they are computed. If another process ended, [`Gradients::finish`] says so.
    ///
    /// # Errors
    /// If the tensor cannot be copied.
    pub fn sum_with_gradient(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        // SAFETY: group and tensor live during the call.
        let sum = unsafe { anatomix_group_sum_with_gradient(self.group.as_ptr(), tensor.as_ptr()) };
        if sum.is_null() {
            return Err(C10dError::latest());
        }
        // SAFETY: the function made a tensor, which belongs to the caller.
        Ok(unsafe { Tensor::from_ptr(sum) })
    }

    /// Replaces a contiguous tensor by that of the process `from`.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn broadcast(&self, tensor: &Tensor, from: usize) -> Result<(), C10dError> {
        // SAFETY: group and tensor live during the call.
        checked(unsafe { anatomix_group_broadcast(self.group.as_ptr(), tensor.as_ptr(), from as c_int) })
    }

    /// Puts the contiguous tensors of all processes one after the other into `all`, in the order of ranks.
    ///
    /// # Errors
    /// If another process ended, or took too long.
    pub fn gather(&self, all: &Tensor, own: &Tensor) -> Result<(), C10dError> {
        // SAFETY: group and tensors live during the call.
        checked(unsafe { anatomix_group_gather(self.group.as_ptr(), all.as_ptr(), own.as_ptr()) })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SAFETY: the group was joined, and nothing uses it afterwards.
        unsafe { anatomix_group_leave(self.group.as_ptr()) }
    }
}

/// Sums of the gradients of parameters, which begin in the backward pass.
#[derive(Debug)]
pub struct Gradients {
    gradients: NonNull<c_void>,
    /// The C++ object keeps a pointer to its group.
    _member: Rc<Member>,
}

impl Gradients {
    /// Listens to the gradients of fp32 parameters, which are summed in buckets of this many bytes. With `overlap` a sum begins as soon as
    /// its gradients are complete.
    ///
    /// # Errors
    /// If a parameter is not in fp32 on the group's device.
    pub fn new(member: &Rc<Member>, parameters: &[Tensor], bytes: usize, overlap: bool) -> Result<Self, C10dError> {
        let tensors: Vec<*const C_tensor> = parameters.iter().map(Tensor::as_ptr).collect();
        // SAFETY: the group lives as long as this object; the tensors live during the call, which keeps references of its own.
        let made = unsafe { anatomix_gradients_new(member.group.as_ptr(), tensors.as_ptr(), tensors.len(), bytes as i64, overlap.into()) };
        let gradients = NonNull::new(made).ok_or_else(C10dError::latest)?;
        Ok(Self { gradients, _member: member.clone() })
    }

    /// Before the backward passes of a step.
    ///
    /// # Errors
    /// None that is known.
    pub fn begin(&self) -> Result<(), C10dError> {
        // SAFETY: the object lives.
        checked(unsafe { anatomix_gradients_begin(self.gradients.as_ptr()) })
    }

    /// After the backward passes of a step: waits until each gradient is the sum over all processes.
    ///
    /// # Errors
    /// If another process ended, or took too long, also in a sum with gradient before; or a gradient was added to more often than in the
    /// first step.
    pub fn finish(&self) -> Result<(), C10dError> {
        // SAFETY: the object lives.
        checked(unsafe { anatomix_gradients_finish(self.gradients.as_ptr()) })
    }
}

impl Drop for Gradients {
    fn drop(&mut self) {
        // SAFETY: the object lives, and nothing uses it afterwards.
        unsafe { anatomix_gradients_delete(self.gradients.as_ptr()) }
    }
}

/// An update of parameters by AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f64,
    /// Decay rates of both moments.
    pub betas: [f64; 2],
    /// Decoupled weight decay.
    pub decay: f64,
    /// Is added to the root of the second moment.
    pub epsilon: f64,
    /// Number of the step, from 1.
    pub step: i64,
    /// Gradients are divided by this first, and keep these values.
    pub divisor: f64,
}

impl AdamW {
    /// Updates parameters in one pass: each is given with its gradient, its first and its second moment, four dense tensors of one layout.
    ///
    /// # Errors
    /// If the tensors do not fit together.
    pub fn update(&self, tensors: &[[Tensor; 4]]) -> Result<(), C10dError> {
        let pointers: Vec<*const C_tensor> = tensors.iter().flatten().map(Tensor::as_ptr).collect();
        let &Self { rate, betas: [beta1, beta2], decay, epsilon, step, divisor } = self;
        // SAFETY: the tensors live during the call, which reads four pointers for each parameter.
        checked(unsafe { anatomix_adamw(pointers.as_ptr(), tensors.len(), rate, beta1, beta2, decay, epsilon, step, divisor) })
    }
}
