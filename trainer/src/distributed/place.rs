//! What torchrun tells a process, in environment variables.

use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// Which of how many processes this is, and where they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number among all processes.
    pub rank: usize,
    /// Number of processes on all machines.
    pub processes: usize,
    /// Its number among the processes of this machine, which is that of its GPU.
    pub local_rank: usize,
    /// Name or address of the machine on which they meet.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether torchrun holds the store of keys and values; otherwise the process of rank 0 does.
    pub has_agent: bool,
    /// How often torchrun started all processes again.
    pub restarts: u64,
}

impl Place {
    /// Reads the variables of this process. Returns `None` if nobody set them, for a process that is alone.
    ///
    /// # Errors
    /// If some are missing or not valid.
    pub fn of_process() -> Result<Option<Self>> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        if variable("WORLD_SIZE").is_none() && variable("RANK").is_none() {
            return Ok(None);
        }
        let needed = |name: &str| {
            variable(name).with_context(|| format!("the environment variable {name} is not set; start the processes with torchrun"))
        };
        fn number<T: FromStr>(name: &str, text: &str) -> Result<T> {
            text.parse().ok().with_context(|| format!("the environment variable {name} is {text:?}, which is no number; torchrun sets it"))
        }
        let port = needed("MASTER_PORT")?;
        let port = port.parse().ok().filter(|&port| port > 0).with_context(|| {
            format!("the environment variable MASTER_PORT is {port:?}, which is not a port, a number from 1 to 65535; torchrun sets it")
        })?;
        let (rank, processes) = (number("RANK", &needed("RANK")?)?, number("WORLD_SIZE", &needed("WORLD_SIZE")?)?);
        ensure!(rank < processes, "the environment says RANK = {rank} of WORLD_SIZE = {processes}; ranks begin with 0");
        ensure!(processes <= MAX_PROCESSES, "WORLD_SIZE = {processes} is more than {MAX_PROCESSES}");
        let or = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.into());
        Ok(Some(Self {
            rank,
            processes,
            local_rank: number("LOCAL_RANK", &or("LOCAL_RANK", "0"))?,
            host: needed("MASTER_ADDR")?,
            port,
            has_agent: or("TORCHELASTIC_USE_AGENT_STORE", "False") == "True",
            restarts: number("TORCHELASTIC_RESTART_COUNT", &or("TORCHELASTIC_RESTART_COUNT", "0"))?,
        }))
    }
}

/// Largest number of processes.
const MAX_PROCESSES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    const TWO: [(&str, &str); 4] = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "node-3"), ("MASTER_PORT", "29500")];

    #[test]
    fn a_process_without_variables_is_alone() {
        assert_eq!(read(&[("MASTER_ADDR", "x")]).unwrap(), None);
    }

    #[test]
    fn variables_of_torchrun_are_read() {
        let place = read(&TWO).unwrap().unwrap();
        let expected = Place { rank: 1, processes: 2, local_rank: 0, host: "node-3".into(), port: 29500, has_agent: false, restarts: 0 };
        assert_eq!(place, expected);
        let elastic = [("LOCAL_RANK", "1"), ("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "3")];
        let place = read(&[&TWO[..], &elastic].concat()).unwrap().unwrap();
        assert_eq!((place.local_rank, place.has_agent, place.restarts), (1, true, 3));
    }

    #[test]
    fn wrong_variables_are_named() {
        for (missing, _) in TWO {
            let rest: Vec<_> = TWO.iter().copied().filter(|(name, _)| *name != missing).collect();
            let error = read(&rest).unwrap_err().to_string();
            assert!(error.contains(missing) && error.contains("torchrun"), "{error}");
        }
        let with = |name: &'static str, value: &'static str| {
            let changed: Vec<_> = TWO.iter().map(|&(key, old)| (key, if key == name { value } else { old })).collect();
            read(&changed).unwrap_err().to_string()
        };
        assert!(with("RANK", "2").contains("RANK = 2 of WORLD_SIZE = 2"));
        assert!(with("RANK", "-1").contains("RANK is \"-1\""));
        for port in ["99999", "0", "-1", "http"] {
            let error = with("MASTER_PORT", port);
            assert!(error.contains(&format!("MASTER_PORT is {port:?}, which is not a port, a number from 1 to 65535")), "{error}");
        }
        assert!(with("WORLD_SIZE", "100000").contains("more than 65536"));
    }
}
