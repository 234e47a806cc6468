-- One row for each address that is or was in use. There is no other index: the agent keeps all of
-- it in memory, and each more would cost a page for each commit.
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
    crc INTEGER NOT NULL,               -- CRC-32 of all columns before it
    PRIMARY KEY (bridge, vlan, address)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot_id TEXT NOT NULL,              -- of the last write
    boot_time_ns INTEGER NOT NULL,      -- CLOCK_BOOTTIME at the last write
    seed INTEGER NOT NULL,              -- the generation before the first
    generation INTEGER NOT NULL,        -- the highest that was given
    release_order INTEGER NOT NULL,     -- the highest that was given
    epoch INTEGER NOT NULL,             -- counts opens
    commits INTEGER NOT NULL,           -- counts transactions
    rows INTEGER NOT NULL,              -- in lease
    digest INTEGER NOT NULL,            -- sum of their crc
    crc INTEGER NOT NULL
) STRICT;
