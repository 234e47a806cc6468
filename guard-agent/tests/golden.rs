//! What outlives one agent, as text beside this file: the layout of the maps, and the schema of the
//! databases. A change to any of them is seen here first. Where it is meant,
//! `UPDATE_EXPECT=1 cargo test -p guard-agent --test golden` writes it down.

use std::fmt::Write as _;

use expect_test::expect_file;
use guard_agent::{
    clock,
    events::IncidentLog,
    store::{Boot, Store},
    supervisor::Supervisor,
};
use guard_ebpf::abi;

/// Where each field of a type of the maps lies. Naming them all is the point: a new one does not
/// compile before it stands here.
macro_rules! layout {
    ($text:ident, $($name:ident { $($field:ident),* $(,)? })*) => {$(
        writeln!($text, "\n{}: {} bytes", stringify!($name), size_of::<abi::$name>()).unwrap();
        if false {
            let abi::$name { $($field: _),* } = <abi::$name as bytemuck::Zeroable>::zeroed();
        }
        $(
            let offset = std::mem::offset_of!(abi::$name, $field);
            writeln!($text, "  {offset} {}", stringify!($field)).unwrap();
        )*
    )*};
}

/// Maps outlive the agent that made them: whatever changes here wants another `LAYOUT_VERSION`.
#[test]
fn the_maps_are_laid_out_as_their_version_says() {
    let mut text = format!("LAYOUT_VERSION {}\n", abi::LAYOUT_VERSION);
    let program = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));
    let object = aya_obj::Object::parse(program).unwrap();
    for name in abi::MAPS {
        let map = &object.maps[name];
        writeln!(
            text,
            "{name}: type {} key {} value {} entries {} flags {} pinned {:?}",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags(),
            map.pinning()
        )
        .unwrap();
    }
    layout! { text,
        AddressKey { bridge, vlan, inner_vlan, address }
        Port {
            ifindex, bridge, bridge_slot, port_slot, pvid, kind, flags, bridge_mac, homes,
            quota_addresses, quota_frames, allow, quota_events, quota_macs, native, reserved,
        }
        Vlans { member }
        Prefix { on_link, allow, allow_virtual, declared, over_owners, governed }
        Owned { generation, seen_ns, ifindex, mac, flags, homes }
        Live { first_ns, seen_ns, ifindex, mac, strength, reserved, passed }
        MacKey { bridge, vlan, reserved, mac, padding }
        MacHolder { ifindex, flags }
        PortState {
            window_ns, told_ns, refused, addresses, frames, events_ns, events, challengers, reserved,
            macs, sources, admitted, admitted_macs, padding, probe_ns,
        }
        ChallengerKey { key, ifindex, mac, kind, reserved }
        Challenger { frames, seen_ns, told_ns, flags, strength, macs, reserved, about }
        Event {
            time_ns, key, ifindex, holder_ifindex, mac, eth_src, holder_mac, kind, strength, flags,
            reserved,
        }
        BridgeCounters {
            frames, malformed, no_claim, opaque, would_drop, dropped, odd, clones, routers,
            over_quota, over_budget, events_lost, live_full, macs_full, unjudged,
        }
        Policy { ifindex, drops, mode, closed, macs, reserved, until_ns }
        PortMac { ifindex, mac, reserved }
        Mode { enforce, braked }
        DropKey { ifindex, reason }
        Drops { dropped, would_drop, first_ns, last_ns, len, tag, frame }
    }
    // What the numbers in them mean.
    text.push('\n');
    let sources = [
        include_str!("../../guard-ebpf/src/abi.rs"),
        include_str!("../../guard-ebpf/src/abi/enforcement.rs"),
        include_str!("../../guard-ebpf/src/abi/prefix.rs"),
    ];
    let is_number = |line: &&str| line.starts_with("pub const ") && !line.contains("&str");
    for line in sources
        .iter()
        .flat_map(|source| source.lines())
        .filter(is_number)
        .filter_map(|line| line.strip_suffix(';'))
    {
        writeln!(text, "{}", line.trim_start_matches("pub const ")).unwrap();
    }
    expect_file!["golden/maps.txt"].assert_eq(&text);
}

/// A store is read by every later agent: whatever changes here wants a migration.
#[test]
fn the_databases_have_the_schema_that_their_version_says() {
    let dir = tempfile::tempdir().unwrap();
    let (leases, incidents) = (dir.path().join("leases.db"), dir.path().join("incidents.db"));
    let boot = Boot { id: "boot".to_owned(), now: clock::now() };
    drop(Store::open(&leases, &boot).unwrap());
    drop(IncidentLog::open(&incidents, &boot.id, &Supervisor::new().0).unwrap());
    let mut text = String::new();
    for path in [leases, incidents] {
        let database = rusqlite::Connection::open(&path).unwrap();
        let number = |pragma| database.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (id, version) = (number("application_id").unwrap(), number("user_version").unwrap());
        let name = path.file_name().unwrap().to_string_lossy();
        writeln!(text, "{name}: application_id {id} user_version {version}").unwrap();
        let query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name";
        let mut query = database.prepare(query).unwrap();
        for sql in query.query_map([], |row| row.get::<_, String>(0)).unwrap() {
            writeln!(text, "{};", sql.unwrap()).unwrap();
        }
    }
    expect_file!["golden/store.txt"].assert_eq(&text);
}
