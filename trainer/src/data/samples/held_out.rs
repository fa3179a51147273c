//! Patients who are in several splits.
//!
//! Data sets about the same images have splits of their own: an image that MS-CXR tests on can be a training image of MIMIC-CXR. A patient
//! belongs to the most protected split that any set has, and samples of other splits are left out.

use super::config::OnLeak;
use crate::data::sources::split::Split;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The splits of all patients.
#[derive(Clone, Debug)]
pub struct HeldOut {
    on_leak: OnLeak,
    patients: HashMap<String, BTreeSet<(Split, &'static str)>>,
}

impl HeldOut {
    /// No patients yet.
    pub fn new(on_leak: OnLeak) -> Self {
        Self { on_leak, patients: HashMap::new() }
    }

    /// Notes that a set has a patient in a split.
    pub fn note(&mut self, patient: &str, split: Split, set: &'static str) {
        match self.patients.get_mut(patient) {
            Some(known) => _ = known.insert((split, set)),
            None => _ = self.patients.insert(patient.into(), BTreeSet::from([(split, set)])),
        }
    }

    /// Whether a sample of this patient may be in this split.
    pub fn allows(&self, patient: &str, split: Split) -> bool {
        let most = self.patients.get(patient).and_then(BTreeSet::last).map_or(split, |(most, _)| *most);
        self.on_leak == OnLeak::Keep || split >= most
    }

    /// Numbers of patients who are in two splits, by sets and splits: `mimic_cxr_jpg train, mscxr test`.
    pub fn conflicts(&self) -> BTreeMap<String, u64> {
        let mut out = BTreeMap::new();
        for sets in self.patients.values().filter(|sets| sets.first().map(|s| s.0) != sets.last().map(|s| s.0)) {
            for (a, first) in sets {
                for (b, second) in sets.iter().filter(|(b, _)| b > a) {
                    *out.entry(format!("{first} {}, {second} {}", a.name(), b.name())).or_default() += 1;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_patient_is_in_two_splits() {
        let mut held = HeldOut::new(OnLeak::LeaveOut);
        held.note("a", Split::Train, "mimic");
        held.note("a", Split::Test, "mscxr");
        held.note("b", Split::Train, "mimic");
        held.note("c", Split::Validate, "mimic");
        held.note("c", Split::Train, "vqa");
        assert_eq!(Split::ALL.map(|split| held.allows("a", split)), [false, false, true]);
        assert_eq!(Split::ALL.map(|split| held.allows("b", split)), [true, true, true]);
        assert_eq!(Split::ALL.map(|split| held.allows("c", split)), [false, true, true]);
        let conflicts: Vec<_> = held.conflicts().into_iter().collect();
        assert_eq!(conflicts, [("mimic train, mscxr test".to_owned(), 1), ("vqa train, mimic validate".to_owned(), 1)]);
        held.on_leak = OnLeak::Keep;
        assert!(held.allows("a", Split::Train));
    }
}
