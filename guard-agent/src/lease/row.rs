//! What the store keeps of an address.

use std::{net::IpAddr, sync::Arc};

use super::{Lease, command::Change};
use crate::segment::Segment;

/// An address of a segment: what a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The bridge and the VLAN.
    pub segment: Segment,
    /// The address.
    pub address: IpAddr,
}

/// What is kept of an address that is or was in use. An address that never was has no row.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// It is not free.
    Lease(Arc<Lease>),
    /// It is free again, and keeps its place in the order of releases. IPv4 only.
    Free {
        /// The place.
        order: u64,
    },
}

impl Row {
    /// The lease, unless it is free.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        match self {
            Self::Lease(lease) => Some(lease),
            Self::Free { .. } => None,
        }
    }
}

/// A compare-and-swap of one row, in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Of which address.
    pub place: Place,
    /// Which table of the engine has it.
    pub(super) table: usize,
    /// What must be there.
    pub old: Option<Row>,
    /// What is there afterwards.
    pub new: Option<Row>,
}

impl RowChange {
    /// A row where there was none, for a store that no engine has open.
    pub(crate) fn insert(place: Place, row: Row) -> Self {
        Self { place, table: usize::MAX, old: None, new: Some(row) }
    }

    /// What others are told of it; nothing where only the bookkeeping of a free address changed.
    pub fn change(&self) -> Option<Change> {
        match (&self.old, &self.new) {
            (_, Some(Row::Lease(lease))) => Some(Change::Put(Arc::clone(lease))),
            (Some(Row::Lease(lease)), _) => Some(Change::Free(Arc::clone(lease))),
            _ => None,
        }
    }
}
