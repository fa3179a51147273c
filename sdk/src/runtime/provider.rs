//! Execution providers: where graphs are computed.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// The choices, for messages.
const CHOICE: &str = "choose auto, cpu, cuda[:N] or tensorrt[:N], N being the number of a GPU, from 0 on";

/// Where graphs are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// CUDA if it can run here, else the CPU; [`Engine::notes`](crate::Engine::notes) says why.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU through CUDA, with the number of the device.
    Cuda(i32),
    /// An NVIDIA GPU through TensorRT, with CUDA for operators that TensorRT does not support.
    TensorRt(i32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(device) => write!(f, "cuda:{device}"),
            Self::TensorRt(device) => write!(f, "tensorrt:{device}"),
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, device) = text.split_once(':').map_or((text, None), |(name, device)| (name, Some(device)));
        let refused = |why: String| format!("{text:?} is not a provider{why}; {CHOICE}");
        let gpu = || {
            let digits = |device: &str| device.bytes().all(|digit| digit.is_ascii_digit());
            let number = |device: &str| device.parse().ok().filter(|_| digits(device));
            device.map_or(Ok(0), |device| number(device).ok_or_else(|| refused(format!(": {device:?} is not the number of a GPU"))))
        };
        match name.to_ascii_lowercase().as_str() {
            "auto" | "cpu" if device.is_some() => Err(refused(format!(": {name} has no devices to choose from"))),
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => gpu().map(Self::Cuda),
            "tensorrt" => gpu().map(Self::TensorRt),
            _ => Err(refused(String::new())),
        }
    }
}

/// Whether a provider can run here.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Availability {
    /// The provider, as `--provider` takes it.
    pub provider: String,
    /// Whether it can run here.
    pub available: bool,
    /// The reason if it cannot; `null` if it can.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_read_or_the_choice_is_named() {
        for provider in [Provider::Auto, Provider::Cpu, Provider::Cuda(0), Provider::Cuda(12), Provider::TensorRt(3)] {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        assert_eq!(("CUDA".parse(), "tensorrt".parse()), (Ok(Provider::Cuda(0)), Ok(Provider::TensorRt(0))));
        for (text, why) in [
            ("cpu:3", "cpu has no devices to choose from"),
            ("auto:0", "auto has no devices to choose from"),
            ("cuda:-1", "\"-1\" is not the number of a GPU"),
            ("cuda:+1", "\"+1\" is not the number of a GPU"),
            ("tensorrt:", "\"\" is not the number of a GPU"),
            ("cuda:99999999999", "\"99999999999\" is not the number of a GPU"),
            ("gpu", "is not a provider"),
            ("", "is not a provider"),
        ] {
            let message = text.parse::<Provider>().unwrap_err();
            assert!(message.contains(why) && message.ends_with(CHOICE), "{text}: {message}");
        }
    }
}
