//! How a radiograph's file is read.

/// Options of reading a radiograph's file.
///
/// ```
/// use anatomix::ReadOptions;
/// let options = ReadOptions::new().window(2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Which transform of the values of interest (VOI) a DICOM file is displayed with, counted from 1: first come the header's VOI LUTs, in
    /// their order, then its windows. 1 by default. To choose one that the file does not have is an error.
    pub window: usize,
}

impl ReadOptions {
    /// Makes default options.
    pub fn new() -> Self {
        Self { window: 1 }
    }

    /// Chooses a VOI LUT or window.
    #[must_use]
    pub fn window(self, window: usize) -> Self {
        Self { window }
    }
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self::new()
    }
}
