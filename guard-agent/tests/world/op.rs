//! The steps of a history.

use proptest::sample::Index;

/// How the agent is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub bypass: bool,
    pub runtime: bool,
    pub directory: bool,
    pub subscribers: bool,
    /// `when_degraded = "allow"`, and `boot_timeout` is over at once.
    pub allow: bool,
}

/// One step of a history. Numbers are indices into small worlds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Allocate {
        who: (u8, u8),
        pools: u8,
        address: Option<u8>,
        port: Option<u8>,
        mac: bool,
    },
    AskAgain(Index),
    Confirm(Index),
    Bind {
        of: Index,
        number: u8,
        mac: bool,
    },
    Release(Index),
    ReleaseOwner {
        sandbox: u8,
        run: Option<u8>,
    },
    Ack {
        of: Index,
        second: bool,
    },
    Force {
        bridge: u8,
        address: u8,
    },
    Quarantine {
        bridge: u8,
        address: u8,
        on: bool,
    },
    Gc,
    Carve {
        id: u8,
        bits: u8,
        at: Option<u8>,
        six: bool,
    },
    Uncarve {
        id: u8,
    },
    Name {
        id: u8,
        tap: bool,
    },
    Unname {
        n: u8,
        tap: bool,
    },
    Link {
        number: u8,
        name: u8,
        bridge: Option<u8>,
    },
    LinkEnds(u8),
    /// It ends, and another has its number, perhaps its name.
    LinkAnew {
        number: u8,
        name: Option<u8>,
        bridge: u8,
    },
    Rename {
        number: u8,
        name: u8,
    },
    Move {
        number: u8,
        bridge: Option<u8>,
    },
    Frame {
        number: u8,
        address: u8,
        six: bool,
        mac: Option<u8>,
    },
    Fade {
        bridge: u8,
        address: u8,
        six: bool,
    },
    Ends(Index),
    Container {
        n: u8,
        who: (u8, u8),
        run: bool,
        address: Option<u8>,
    },
    /// One for somebody who was given an address, with a label or (CNI's way) without.
    ContainerOf {
        n: u8,
        of: Index,
        run: bool,
        label: bool,
    },
    ContainerEnds(u8),
    Register {
        who: (u8, u8),
        any_run: bool,
    },
    Dies {
        who: (u8, u8),
        any_run: bool,
    },
    Index,
    Host {
        bridge: u8,
        address: u8,
    },
    Bridge {
        bridge: u8,
        absent: bool,
    },
    Ask(bool),
    Answer {
        directory: bool,
        outcome: u8,
    },
    StreamBreaks,
    Time(u8),
    WallBack,
    Reconcile {
        runtime: u8,
        directory: u8,
    },
    /// Passes until what is silent is due.
    Passes,
    /// It runs again, and the index knows only of the end of an earlier run, and not of which.
    StartsAgain {
        who: (u8, u8),
    },
    RecheckAll,
    /// The next command comes before the agent has looked at what it was told.
    Lag,
    NextCommitFails,
    Stop {
        in_order: bool,
    },
    Start,
    Restart {
        in_order: bool,
    },
    LoseStore {
        at_once: bool,
    },
    Reboot {
        containers_stay: bool,
    },
    Read(u8),
    BootPass,
    Story(Story),
}

/// Steps that chance seldom brings together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Story {
    /// A port is renamed, and then asked for by its old name.
    Renamed { who: (u8, u8), number: u8, name: u8 },
    /// When a call names a port that port has ended and another has its number, perhaps its name, and the
    /// ledger has not looked yet.
    EndsMeanwhile { who: (u8, u8), number: u8, name: Option<u8> },
    /// An address is claimed while it is the host's own, and is the host's no more.
    HostHadIt { number: u8, address: u8 },
    /// The index lists an earlier run as dead, and not which; this one is silent.
    RunsSilently { who: (u8, u8) },
    /// It has been silent for long when the index lists its death.
    DiesAtLast { who: (u8, u8) },
    /// The VLAN of a pool is another one from the next start on, while it has leases.
    MovesVlan { who: (u8, u8), in_order: bool },
    /// After a reboot the directory's list is lost, whether its many leases were used again or not.
    ListIsLost { used_again: bool, by_asking: bool, restart: bool },
}
