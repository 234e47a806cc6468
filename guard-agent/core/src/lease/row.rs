//! What the store keeps of an address.

use std::{net::IpAddr, sync::Arc};

use super::{InterfaceName, Lease, Subnet, command::Change};
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

/// A compare-and-swap of one row of the store, in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Of an address.
    Address(RowChange),
    /// Of a child subnet.
    Subnet(Swap<Subnet>),
    /// Of an interface name.
    Interface(Swap<InterfaceName>),
}

/// One thing in the place of another; nothing where it is new, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap<T> {
    /// What must be there.
    pub old: Option<Arc<T>>,
    /// What is there afterwards.
    pub new: Option<Arc<T>>,
}

/// All that is kept: what a store holds, or what an engine has in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Addresses that are or were in use.
    pub rows: Vec<(Place, Row)>,
    /// Child subnets, by their identifiers.
    pub subnets: Vec<Arc<Subnet>>,
    /// Interface names, in their order.
    pub interfaces: Vec<Arc<InterfaceName>>,
}

/// A compare-and-swap of one address's row.
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
    pub fn insert(place: Place, row: Row) -> Self {
        Self { place, table: usize::MAX, old: None, new: Some(row) }
    }

    /// What the event stream says of it; nothing where only the bookkeeping of an address changed, which
    /// concerns thousands at once.
    pub fn change(&self) -> Option<Change> {
        match (&self.old, &self.new) {
            (Some(Row::Lease(old)), Some(Row::Lease(new))) if is_bookkeeping(old, new) => None,
            (_, Some(Row::Lease(lease))) => Some(Change::Put(Arc::clone(lease))),
            (Some(Row::Lease(lease)), _) => Some(Change::Free(Arc::clone(lease))),
            _ => None,
        }
    }
}

/// Whether the reconciler's count is all that changed.
fn is_bookkeeping(old: &Lease, new: &Lease) -> bool {
    let Lease { misses, missed_at, boot, updated_at, .. } = *new;
    (misses, boot) != (old.misses, old.boot)
        && *new == Lease { misses, missed_at, boot, updated_at, ..old.clone() }
}

impl Write {
    /// What the event stream says of it; they follow addresses only.
    pub fn change(&self) -> Option<Change> {
        match self {
            Self::Address(change) => change.change(),
            Self::Subnet(_) | Self::Interface(_) => None,
        }
    }
}

impl Contents {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        let Self { rows, subnets, interfaces } = self;
        rows.len() + subnets.len() + interfaces.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What makes an empty store hold this.
    pub fn into_writes(self) -> Vec<Write> {
        let Self { rows, subnets, interfaces } = self;
        let rows = rows.into_iter().map(|(place, row)| RowChange::insert(place, row));
        let subnets = subnets.into_iter().map(|new| Swap { old: None, new: Some(new) });
        let interfaces = interfaces.into_iter().map(|new| Swap { old: None, new: Some(new) });
        rows.map(Write::Address)
            .chain(subnets.map(Write::Subnet))
            .chain(interfaces.map(Write::Interface))
            .collect()
    }
}
