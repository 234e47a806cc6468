//! guard's agent: leases that no two sandboxes can hold, reconciled with what is on the wire.
