-- Who made a lease. The rows are written anew, since each has its checksum last.
DROP TABLE lease;
CREATE TABLE lease (
    bridge TEXT NOT NULL,
    vlan INTEGER NOT NULL,
    address BLOB NOT NULL,              -- 4 or 16 bytes, in network order
    state INTEGER NOT NULL,             -- 0 free, 1 held, 2 active, 3 releasing, 4 cooling, 5 quarantined
    release_order INTEGER NOT NULL,     -- place among all releases
    pool TEXT NOT NULL,
    sandbox TEXT,
    lifecycle TEXT,
    key TEXT NOT NULL,
    generation INTEGER NOT NULL,
    declared INTEGER NOT NULL,          -- the binding was declared, not learned
    mac BLOB,                           -- 6 bytes
    interface TEXT,
    ifindex INTEGER,
    reason TEXT NOT NULL,
    holds TEXT,                         -- JSON: [[subscriber, CLOCK_BOOTTIME in ns], …]
    misses INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,        -- since 1970
    updated_ns INTEGER NOT NULL,
    until_ns INTEGER,                   -- CLOCK_BOOTTIME of the boot in meta
    bypassed INTEGER NOT NULL,
    labels TEXT,                        -- JSON object
    boot INTEGER NOT NULL,              -- in which its owner last asked for, confirmed or bound it
    missed_ns INTEGER,                  -- the last miss, CLOCK_BOOTTIME of the boot in meta
    port_ended INTEGER NOT NULL,        -- the port that it was bound to has ended
    port_mac BLOB,                      -- hardware address of the bound port, 6 bytes
    port_peer INTEGER,                  -- ifindex of the link that the bound port is joined to
    port_netns INTEGER,                 -- id of the namespace that this one is in (RTM_GETNSID)
    maker INTEGER,                      -- uid of who made the lease, where that is known
    crc INTEGER NOT NULL,               -- CRC-32 of all columns before it
    PRIMARY KEY (bridge, vlan, address)
) STRICT, WITHOUT ROWID;
