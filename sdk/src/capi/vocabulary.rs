//! The names of structures, labels and tasks.

use super::strings::c_string;
use crate::anatomy::{Label, Side, Structure};
use crate::task::Task;
use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::LazyLock;

static STRUCTURES: LazyLock<Vec<CString>> = LazyLock::new(|| Structure::all().map(|one| c_string(one.name())).collect());
static LABELS: LazyLock<Vec<CString>> = LazyLock::new(|| Label::ALL.iter().map(|one| c_string(one.name())).collect());
static TASKS: LazyLock<Vec<CString>> = LazyLock::new(|| Task::ALL.iter().map(|one| c_string(one.name())).collect());

/// A side of the patient's body.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_side {
    /// None: an unpaired structure.
    ANX_SIDE_NONE = 0,
    /// The patient's left.
    ANX_SIDE_LEFT = 1,
    /// The patient's right.
    ANX_SIDE_RIGHT = 2,
}

fn name(names: &[CString], index: usize) -> *const c_char {
    names.get(index).map_or(null(), |name| name.as_ptr())
}

/// The name of a structure, as anx_structure.name has it. The string is static; NULL if index is above 35.
#[unsafe(no_mangle)]
pub extern "C" fn anx_structure_name(index: usize) -> *const c_char {
    name(&STRUCTURES, index)
}

/// The name of an image label, as anx_label.name has it. The string is static; NULL if index is above 13.
#[unsafe(no_mangle)]
pub extern "C" fn anx_label_name(index: usize) -> *const c_char {
    name(&LABELS, index)
}

/// The name of a task, as anx_ask_options.task takes it. The string is static; NULL if index is above 8.
#[unsafe(no_mangle)]
pub extern "C" fn anx_task_name(index: usize) -> *const c_char {
    name(&TASKS, index)
}

/// The side of a structure, the patient's, in a mirrored image as well; ANX_SIDE_NONE if it is unpaired or index is above 35.
#[unsafe(no_mangle)]
pub extern "C" fn anx_structure_side(index: usize) -> anx_side {
    match Structure::new(index).and_then(Structure::side) {
        None => anx_side::ANX_SIDE_NONE,
        Some(Side::Left) => anx_side::ANX_SIDE_LEFT,
        Some(Side::Right) => anx_side::ANX_SIDE_RIGHT,
    }
}

/// The index of the same structure on the other side of the body; the given index if it is unpaired or above 35.
#[unsafe(no_mangle)]
pub extern "C" fn anx_structure_counterpart(index: usize) -> usize {
    Structure::new(index).and_then(Structure::counterpart).map_or(index, Structure::index)
}
