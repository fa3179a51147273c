//! The configuration of `prepare`: a TOML file that says where the data sets are.

use crate::data::sources::split::Split;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest configuration in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of what is drawn: templates, structures, validation images of VinDr-CXR.
    pub seed: u64,
    /// What happens to samples of a patient who is in a more protected split elsewhere.
    pub on_leak: OnLeak,
    /// The splits whose sentences go into the sentence database; not the test split.
    pub database_splits: Vec<Split>,
    /// The share of VinDr-CXR's training images that are held out for validation, which it has no split for.
    pub vindr_validation: f64,
    /// A file of templates instead of this program's own.
    pub templates: Option<PathBuf>,
    /// Where the data sets are.
    pub sources: Folders,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 2025,
            on_leak: OnLeak::LeaveOut,
            database_splits: vec![Split::Validate],
            vindr_validation: 0.1,
            templates: None,
            sources: Folders::default(),
        }
    }
}

/// What happens to samples of a patient who is in a more protected split elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLeak {
    /// They are left out: nothing of a patient is trained on who is in the test split of any set.
    LeaveOut,
    /// They are kept, as published.
    Keep,
}

macro_rules! folders {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The folder of each data set; those that one does not have are left away.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Folders { $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<PathBuf>,)+ }

        impl Folders {
            /// Names and folders in the order of the fields.
            pub fn named(&self) -> Vec<(&'static str, Option<&Path>)> {
                vec![$((stringify!($name), self.$name.as_deref()),)+]
            }

            fn resolve(&mut self, base: &Path) {
                $(self.$name.iter_mut().for_each(|path| *path = base.join(&*path));)+
            }
        }
    };
}

folders! {
    /// Chest ImaGenome 1.0.0: holds `silver_dataset`.
    chest_imagenome,
    /// MIMIC-CXR-JPG 2.1.0: holds the tables and `files`.
    mimic_cxr_jpg,
    /// The reports of MIMIC-CXR: holds `files`. The folder of the images if it is left away.
    mimic_cxr_reports,
    /// MS-CXR 1.1.0: holds its table.
    ms_cxr,
    /// VinDr-CXR 1.0.0: holds `annotations`, `train` and `test`.
    vindr_cxr,
    /// PadChest-GR: holds the list of reports and `master_table.csv`.
    padchest_gr,
    /// The images of PadChest-GR. `images` in the folder of the reports if it is left away.
    padchest_gr_images,
    /// SLAKE: holds the lists of questions and `imgs`.
    slake,
    /// MIMIC-CXR-VQA: holds the lists of questions.
    mimic_cxr_vqa,
    /// RaDialog-Instruct: holds its list.
    radialog_instruct,
    /// What `anatomix-trainer phantom` drew.
    phantom,
}

impl Config {
    /// Reads and checks a configuration. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// If the file cannot be read or is not valid, a folder does not exist, or a data set lacks another one whose images it is about.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = anatomix::parts::files::read(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = std::str::from_utf8(&bytes).map_err(anyhow::Error::new).and_then(|text| Ok(toml::from_str::<Self>(text)?));
        let mut config = parsed.with_context(|| format!("{} is not a configuration of `prepare`", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.sources.resolve(base);
        config.templates.iter_mut().for_each(|path| *path = base.join(&*path));
        config.check().with_context(|| format!("{} is not valid", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.database_splits.is_empty(), "database_splits is empty; name the split whose sentences are retrieved");
        ensure!(
            !self.database_splits.contains(&Split::Test),
            "database_splits names the test split; the sentence database is never made of test images"
        );
        ensure!((0.0..=0.5).contains(&self.vindr_validation), "vindr_validation is {}; use 0 to 0.5", self.vindr_validation);
        let folders = self.sources.named();
        ensure!(folders.iter().any(|(_, path)| path.is_some()), "[sources] names no folder; name those of the data sets that you have");
        for (name, path) in folders {
            let Some(path) = path else { continue };
            ensure!(path.is_dir(), "{name} is {}, which is not a folder; correct it or leave it away", path.display());
        }
        let own = &self.sources;
        let needs_mimic = [
            ("chest_imagenome", &own.chest_imagenome),
            ("mimic_cxr_reports", &own.mimic_cxr_reports),
            ("ms_cxr", &own.ms_cxr),
            ("mimic_cxr_vqa", &own.mimic_cxr_vqa),
            ("radialog_instruct", &own.radialog_instruct),
        ];
        for (name, path) in needs_mimic {
            ensure!(path.is_none() || own.mimic_cxr_jpg.is_some(), "{name} is about the images of mimic_cxr_jpg; name that folder, too");
        }
        ensure!(
            own.padchest_gr_images.is_none() || own.padchest_gr.is_some(),
            "padchest_gr_images needs padchest_gr; name that folder, too"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_configurations_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prepare.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::read(&path).map_err(|error| format!("{error:#}"))
        };
        let config = read("seed = 7\n[sources]\nslake = \".\"").unwrap();
        assert_eq!((config.seed, config.on_leak), (7, OnLeak::LeaveOut));
        assert_eq!(config.sources.slake.unwrap(), folder.path().join("."));
        for (text, expected) in [
            ("", "names no folder"),
            ("[sources]\nslake = \"none\"", "is not a folder"),
            ("[sources]\nms_cxr = \".\"", "about the images of mimic_cxr_jpg"),
            ("[sources]\nimagenet = \".\"", "unknown field"),
            ("database_splits = [\"test\"]\n[sources]\nslake = \".\"", "never made of test images"),
            ("vindr_validation = nan\n[sources]\nslake = \".\"", "use 0 to 0.5"),
            ("\u{0}", "is not a configuration"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
