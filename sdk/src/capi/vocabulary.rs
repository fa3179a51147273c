//! The names that results use, without a result.

use super::strings::c_string;
use crate::anatomy::{Label, Structure};
use crate::task::Task;
use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::LazyLock;

static STRUCTURES: LazyLock<Vec<CString>> = LazyLock::new(|| Structure::all().map(|one| c_string(one.name())).collect());
static LABELS: LazyLock<Vec<CString>> = LazyLock::new(|| Label::ALL.iter().map(|one| c_string(one.name())).collect());
static TASKS: LazyLock<Vec<CString>> = LazyLock::new(|| Task::ALL.iter().map(|one| c_string(one.name())).collect());

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
