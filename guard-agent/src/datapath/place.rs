//! Whether the program sees every frame of a port: only the first on the hook does. What comes before it
//! may end a frame's way (`TC_ACT_OK`, `TC_ACT_SHOT`, a redirection).

use std::io;

use super::{attach::Attach, bpf, clsact, tc, trace};

/// Where the program is on the ingress of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// Behind another, which is described.
    Behind(String),
    /// Not there.
    Off,
}

/// One of those on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occupant {
    /// The program, if it is one.
    pub program_id: Option<u32>,
    /// The filter that it is, where filters are.
    pub filter: Option<tc::Filter>,
}

impl Attach {
    /// What is on the ingress of a link, in the order in which it runs.
    pub(super) fn occupants(self, ifindex: u32) -> io::Result<Vec<Occupant>> {
        Ok(match self {
            Self::Tcx => {
                let programs = bpf::programs(ifindex)?.into_iter();
                programs.map(|id| Occupant { program_id: Some(id), filter: None }).collect()
            }
            Self::Clsact => {
                let filters = tc::filters(ifindex, tc::INGRESS)?.into_iter();
                let occupant = |filter: tc::Filter| Occupant {
                    program_id: filter.program_id,
                    filter: Some(filter),
                };
                filters.map(occupant).collect()
            }
        })
    }

    /// Where a program is on the ingress of a link, by the link's number: its name may be another's.
    ///
    /// # Errors
    /// There is no such link, or the kernel's refusal.
    pub fn place(self, program_id: u32, ifindex: u32) -> io::Result<Place> {
        let occupants = self.occupants(ifindex)?;
        let is_it = |occupant: &Occupant| occupant.program_id == Some(program_id);
        let Some(at) = occupants.iter().position(is_it) else { return Ok(Place::Off) };
        // What traces the port passes everything on.
        let other = occupants.iter().take(at).find(|occupant| !occupant.is_tracer());
        Ok(other.map_or(Place::First, |other| Place::Behind(other.describe())))
    }
}

impl Occupant {
    fn is_tracer(&self) -> bool {
        match &self.filter {
            Some(filter) => {
                let handle = u32::from(clsact::TRACE_HANDLE);
                (filter.priority, filter.handle) == (clsact::PRIORITY, handle)
            }
            None => self.program_id.is_some_and(trace::is_running),
        }
    }

    /// What it is, for people. Of a program without a filter the kernel says no more to an agent that may
    /// not do everything.
    fn describe(&self) -> String {
        let program = self.program_id.map(|id| match &self.filter {
            Some(tc::Filter { name: Some(name), .. }) => format!("program {id} ({name})"),
            _ => format!("program {id} (bpftool prog show id {id})"),
        });
        let priority = self.filter.as_ref().map(|filter| filter.priority);
        let filter = priority.map(|priority| format!("a filter of priority {priority}"));
        match (program, filter) {
            (Some(program), Some(filter)) => format!("{program}, {filter},"),
            (program, filter) => program.or(filter).unwrap_or_default(),
        }
    }
}
