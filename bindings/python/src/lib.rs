//! The Python interface: the extension module `anatomix._anatomix`. It converts arguments, calls the SDK and returns results.
//!
//! One file holds one noun. Python defines the classes of results that are only data (`python/anatomix/_records.py`) and of the exceptions
//! (`_errors.py`).

mod answer;
mod cancel;
mod engine;
mod errors;
mod log;
mod overlay;
mod pixels;
mod progress;
mod question;
mod radiograph;
mod records;
mod report;
mod stream;
mod study;
mod waiting;

use pyo3::prelude::*;

#[pymodule]
mod _anatomix {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::answer::Answer;
    #[pymodule_export]
    use super::cancel::CancelHandle;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::engine::verify_bundle;
    #[pymodule_export]
    use super::is_saved_study;
    #[pymodule_export]
    use super::question::Question;
    #[pymodule_export]
    use super::radiograph::Radiograph;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::study::Study;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let counterparts = anatomix::Structure::all().map(|one| one.counterpart().unwrap_or(one).index());
        module.add("COUNTERPARTS", pyo3::types::PyTuple::new(module.py(), counterparts)?)?;
        module.add("STRUCTURES", super::records::names(module.py(), anatomix::Structure::all().map(anatomix::Structure::name))?)?;
        module.add("LABELS", super::records::names(module.py(), anatomix::Label::ALL.map(anatomix::Label::name))?)?;
        module.add("TASKS", super::records::names(module.py(), anatomix::Task::ALL.map(anatomix::Task::name))?)?;
        super::stream::end_at_exit(module.py())
    }
}

/// Whether bytes begin as those of a saved study do.
#[pyfunction]
fn is_saved_study(data: radiograph::Bytes) -> bool {
    anatomix::is_saved_study(&data)
}
