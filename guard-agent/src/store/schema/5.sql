-- Who made a child subnet and who reserved a name. The rows are written anew, since each has its
-- checksum last.
DROP TABLE subnet;
CREATE TABLE subnet (
    id TEXT NOT NULL PRIMARY KEY,
    bridge TEXT NOT NULL,
    vlan INTEGER NOT NULL,
    network BLOB NOT NULL,              -- 4 or 16 bytes, in network order
    length INTEGER NOT NULL,            -- of the prefix
    pool TEXT NOT NULL,                 -- the parent
    created_ns INTEGER NOT NULL,        -- since 1970
    maker INTEGER,                      -- uid of who made it, where that is known
    crc INTEGER NOT NULL                -- CRC-32 of all columns before it
) STRICT, WITHOUT ROWID;

DROP TABLE interface;
CREATE TABLE interface (
    name TEXT NOT NULL PRIMARY KEY,
    prefix TEXT NOT NULL,               -- what it was asked for by
    id TEXT NOT NULL,
    created_ns INTEGER NOT NULL,        -- since 1970
    maker INTEGER,                      -- uid of who reserved it, where that is known
    crc INTEGER NOT NULL                -- CRC-32 of all columns before it
) STRICT, WITHOUT ROWID;
