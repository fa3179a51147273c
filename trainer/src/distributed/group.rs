//! The group of all processes of a training, with what they know of one another.

use super::beats::Beats;
use super::c10d::{self, C10dError, Gradients, Member, Store};
use super::place::Place;
use super::settings::Distributed;
use anyhow::{Context, Result, bail};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Time between two looks at whether a process has come.
const POLL: Duration = Duration::from_millis(50);

/// The group, as one of its processes has it.
#[derive(Debug)]
pub struct Group {
    pub(super) place: Place,
    pub(super) settings: Distributed,
    pub(super) device: Device,
    pub(super) member: Rc<Member>,
    pub(super) store: Store,
    // Ends before the store does.
    _beats: Beats,
}

impl Group {
    /// Joins the group. Returns once all processes have joined.
    ///
    /// # Errors
    /// If the others do not join in time; the error names them, or the address that cannot be reached.
    pub fn join(place: Place, device: Device, settings: Distributed) -> Result<Self> {
        let meeting = || {
            format!(
                "rank {} of {} cannot meet the others at MASTER_ADDR = {}, MASTER_PORT = {} (join_timeout = {} s in [distributed]); see \
                 whether this machine reaches that address, and the program there runs",
                place.rank, place.processes, place.host, place.port, settings.join_timeout
            )
        };
        // A restart finds the keys of the start before it if torchrun holds the store.
        let prefix = format!("anatomix/{}", place.restarts);
        let open = |serves: bool| Store::open(&place.host, place.port, serves, &prefix, settings.longest_join());
        let store = open(!place.has_agent && place.rank == 0).with_context(meeting)?;
        let name = format!("rank {} on {}, process {},", place.rank, c10d::host_name(), std::process::id());
        store.set(&format!("name/{}", place.rank), &name).with_context(meeting)?;
        Self::wait_for_all(&place, &settings, &store).with_context(|| format!("rank {} of {}", place.rank, place.processes))?;
        let beats = Beats::start(open(false).with_context(meeting)?, place.rank).with_context(meeting)?;
        let member = Member::join(&store, place.rank, place.processes, device, settings.longest_wait()).with_context(meeting)?;
        Ok(Self { place, settings, device, member: Rc::new(member), store, _beats: beats })
    }

    /// Waits until each process has told its name.
    fn wait_for_all(place: &Place, settings: &Distributed, store: &Store) -> Result<()> {
        let until = Instant::now() + settings.longest_join();
        let is_there = |rank: usize| store.get(&format!("name/{rank}")).map(|name| name.is_some());
        for rank in 0..place.processes {
            while !is_there(rank)? {
                if Instant::now() > until {
                    let missing =
                        (rank..place.processes).filter_map(|rank| is_there(rank).map(|there| (!there).then_some(rank)).transpose());
                    let missing = missing.map(|rank| Ok(rank?.to_string())).collect::<Result<Vec<_>>>()?;
                    bail!(
                        "no process of rank {} came to {}:{} within {} s; see what it says, or raise `join_timeout` in [distributed]",
                        missing.join(", "),
                        place.host,
                        place.port,
                        settings.join_timeout
                    );
                }
                sleep(POLL);
            }
        }
        Ok(())
    }

    /// Sums of the gradients of parameters.
    ///
    /// # Errors
    /// If a parameter is not in fp32 on the group's device.
    pub fn gradients(&self, parameters: &[Tensor]) -> Result<Gradients, C10dError> {
        Gradients::new(&self.member, parameters, self.settings.bucket << 20, self.settings.overlap)
    }
}
