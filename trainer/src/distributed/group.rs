//! The group of all processes of a training, with what they know of one another.

use super::beats::Beats;
use super::c10d::{self, C10dError, Gradients, Member, Store};
use super::place::Place;
use super::settings::Distributed;
use anyhow::{Context, Result};
use std::rc::Rc;
use tch::{Device, Tensor};

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
    /// If the others do not join in time.
    pub fn join(place: Place, device: Device, settings: Distributed) -> Result<Self> {
        let wait = settings.longest_wait();
        let meeting = || format!("rank {} of {} cannot meet the others at {}:{}", place.rank, place.processes, place.host, place.port);
        // A restart finds the keys of the start before it if torchrun holds the store.
        let prefix = format!("anatomix/{}", place.restarts);
        let open = |serves: bool| Store::open(&place.host, place.port, serves, &prefix, wait);
        let store = open(!place.has_agent && place.rank == 0).with_context(meeting)?;
        let name = format!("rank {} on {}, process {},", place.rank, c10d::host_name(), std::process::id());
        store.set(&format!("name/{}", place.rank), &name).with_context(meeting)?;
        let beats = Beats::start(open(false).with_context(meeting)?, place.rank).with_context(meeting)?;
        let member = Member::join(&store, place.rank, place.processes, device, wait).with_context(meeting)?;
        Ok(Self { place, settings, device, member: Rc::new(member), store, _beats: beats })
    }

    /// Sums of the gradients of parameters.
    ///
    /// # Errors
    /// If a parameter is not in fp32 on the group's device.
    pub fn gradients(&self, parameters: &[Tensor]) -> Result<Gradients, C10dError> {
        Gradients::new(&self.member, parameters, self.settings.bucket << 20, self.settings.overlap)
    }
}
