//! Results that are only data: the classes of `python/anatomix/_records.py`, and records as dictionaries.

use anatomix::{Answer, Flag, Grounding, PixelBox, Side, StructureResult};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde::Serialize;

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("anatomix._records")?.getattr(name)
}

/// A tuple of names.
pub fn names<'py>(py: Python<'py>, names: impl IntoIterator<Item = &'static str>) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, names.into_iter().collect::<Vec<_>>())
}

/// What `json.loads` makes of a record's JSON, which is the JSON that the program prints.
pub fn parsed<'py>(py: Python<'py>, record: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(record).map_err(|error| PyValueError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (text,))
}

/// The `Box` of a box.
fn bounds<'py>(make: &Bound<'py, PyAny>, bounds: &PixelBox) -> PyResult<Bound<'py, PyAny>> {
    make.call1((bounds.x0, bounds.y0, bounds.x1, bounds.y1))
}

/// A tuple with a `Structure` for each structure.
pub fn structures<'py>(py: Python<'py>, found: &[StructureResult]) -> PyResult<Bound<'py, PyTuple>> {
    let (make, make_box) = (class(py, "Structure")?, class(py, "Box")?);
    let made = found.iter().map(|found| {
        let (structure, sentence) = (found.structure, &found.sentence);
        let side = structure.side().map(|side| match side {
            Side::Left => "left",
            Side::Right => "right",
        });
        let bounds = bounds(&make_box, &found.bounds)?;
        make.call1((structure.index(), structure.name(), side, bounds, &sentence.text, sentence.similarity, sentence.margin))
    });
    PyTuple::new(py, made.collect::<PyResult<Vec<_>>>()?)
}

/// A tuple with a `Grounding` for each phrase.
pub fn groundings<'py>(py: Python<'py>, found: &[Grounding]) -> PyResult<Bound<'py, PyTuple>> {
    let (make, make_box) = (class(py, "Grounding")?, class(py, "Box")?);
    let made = found.iter().map(|grounding| {
        let boxes = grounding.boxes.iter().map(|one| bounds(&make_box, one)).collect::<PyResult<Vec<_>>>()?;
        make.call1((&grounding.phrase, PyTuple::new(py, boxes)?))
    });
    PyTuple::new(py, made.collect::<PyResult<Vec<_>>>()?)
}

/// A tuple with an `Evidence` for each sentence.
pub fn evidence<'py>(py: Python<'py>, answer: &Answer) -> PyResult<Bound<'py, PyTuple>> {
    let (make, make_structure, make_box) = (class(py, "Evidence")?, class(py, "StructureEvidence")?, class(py, "Box")?);
    let made = answer.evidence.iter().map(|of| {
        let structures = of.structures.iter().map(|found| {
            let (structure, bounds) = (found.structure, bounds(&make_box, &found.bounds)?);
            make_structure.call1((structure.index(), structure.name(), found.relation.name(), found.similarity, found.margin, bounds))
        });
        let structures = PyTuple::new(py, structures.collect::<PyResult<Vec<_>>>()?)?;
        let sentence = answer.text.get(of.range.clone()).unwrap_or_default();
        make.call1((sentence, of.support.name(), structures, PyTuple::new(py, &of.groundings)?, of.probability))
    });
    PyTuple::new(py, made.collect::<PyResult<Vec<_>>>()?)
}

/// A tuple with a `Flag` for each flag.
pub fn flags<'py>(py: Python<'py>, flags: &[Flag]) -> PyResult<Bound<'py, PyTuple>> {
    let make = class(py, "Flag")?;
    let made = flags.iter().map(|flag| make.call((), Some(&parsed(py, flag)?.cast_into::<PyDict>()?)));
    PyTuple::new(py, made.collect::<PyResult<Vec<_>>>()?)
}
