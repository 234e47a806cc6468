//! What a configuration of the agent says of a capture.

use guard_core::enforcement::Mode;

use super::*;

fn configured(text: &str, bridge: Option<&str>) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    let mut settings = Settings::default();
    settings.configure(&path, bridge).map_err(|error| error.to_string())?;
    Ok(settings)
}

/// The agent's other settings are the agent's affair.
const TWO: &str = r#"
state_dir = "/srv/guard"
[conflict]
quiet = "10m"
[[bridge]]
name = "br0"
mode = "enforce"
uplinks = ["eth0"]
prefixes = ["192.0.2.7/24", { prefix = "198.51.100.0/24", vlan = 3 }]
[[bridge.allow]]
kind = "shared"
addresses = ["10.8.64.2"]
ports = ["v-a", "v-b"]
[[bridge]]
name = "br1"
[[pool]]
name = "a"
bridge = "br0"
prefix = "10.8.64.0/24"
gateway_ports = ["router"]
[[pool]]
name = "b"
bridge = "br0"
vlan = 7
prefix = "10.8.65.0/24"
gateway = "none"
[[pool]]
name = "c"
bridge = "br1"
prefix = "10.8.66.0/24"
gateway = "10.8.66.9"
"#;

#[test]
fn a_bridge_gives_its_pools_prefixes_uplinks_rules_and_times() {
    let settings = configured(TWO, Some("br0")).unwrap();
    let prefixes: Vec<_> =
        settings.prefixes.iter().map(|given| (given.vlan, given.net.to_string())).collect();
    let given = |vlan, net: &str| (Some(vlan), net.to_owned());
    assert_eq!(
        prefixes,
        [
            given(0, "192.0.2.0/24"),
            given(3, "198.51.100.0/24"),
            given(0, "10.8.64.0/24"),
            given(7, "10.8.65.0/24")
        ]
    );
    let ports = vec!["router".into()];
    let gateway = Gateway { vlan: Some(0), address: GATEWAY.into(), mac: None, ports };
    assert_eq!(settings.gateways, [gateway]);
    assert_eq!((settings.rules.len(), settings.conflict.quiet.as_secs()), (1, 600));
    assert_eq!(
        (settings.bridge.as_str(), &settings.uplinks[..]),
        ("br0", &["eth0".to_owned()][..])
    );
    let other = configured(TWO, Some("br1")).unwrap();
    assert_eq!((other.gateways.len(), other.rules.len()), (1, 0));
}

#[test]
fn which_bridge_has_to_be_clear() {
    for (bridge, why) in [(None, "2 bridges; say which"), (Some("br2"), "no bridge \"br2\"")] {
        let error = configured(TWO, bridge).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let one = "[[bridge]]\nname = \"br0\"\n";
    assert_eq!(configured(one, None).unwrap().bridge, "br0");
    for (wrong, why) in [
        ("", "0 bridges"),
        ("bridge = 1", "invalid type"),
        (
            "[[bridge]]\nname = \"br0\"\nallow = [{ kind = \"proxy\", addresses = [\"x\"] }]",
            "\"x\"",
        ),
        (
            "[[bridge]]\nname = \"b\"\n[[pool]]\nname = \"p\"\nbridge = \"b\"\nprefix = \"::1/128\"",
            "unicast",
        ),
    ] {
        let error = configured(wrong, None).unwrap_err();
        assert!(error.contains(why) && error.contains("agent.toml"), "{error}");
    }
    let mut settings = Settings::default();
    let missing = settings.configure(Path::new("/nonexistent/agent.toml"), None);
    assert!(matches!(missing, Err(ConfigError::Read { .. })));
}

#[test]
fn a17_what_a_rule_allows_is_no_conflict() {
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(THIEF, ADDRESS))];
    let of = |ports: &str| {
        let rule = format!("{{ kind = \"shared\", addresses = [\"{ADDRESS}\"], ports = {ports} }}");
        configured(&format!("[[bridge]]\nname = \"br0\"\nallow = [{rule}]"), None).unwrap()
    };
    let kinds = |settings: &Settings| -> Vec<_> {
        told(&report(Format::Next, &sent, settings)).into_iter().map(|(kind, ..)| kind).collect()
    };
    // A capture on the bridge has the frames of all ports.
    for ports in ["[]", r#"["v-a", "v-b"]"#, r#"["elsewhere"]"#] {
        assert_eq!(kinds(&of(ports)), Vec::<String>::new(), "{ports}");
        assert_eq!(report(Format::Next, &sent, &of(ports)).claims.len(), 2);
    }
    // Those of one port each say which may.
    let ingress = |ports| Settings { ingress: true, ..of(ports) };
    assert_eq!(kinds(&ingress(r#"["v-a", "v-b"]"#)), Vec::<String>::new());
    assert_eq!(kinds(&ingress(r#"["v-a"]"#)), ["CONFLICT_KIND_DUPLICATE"]);
    let sent_by_one = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(OWNER, ADDRESS))];
    let moved = report(Format::Next, &sent_by_one, &ingress(r#"["v-a", "v-b"]"#));
    assert!(told(&moved).is_empty(), "{:?}", told(&moved));
    let without = report(Format::Next, &sent_by_one, &self::ingress());
    assert_eq!(told(&without).len(), 1);
}

#[test]
fn a_pools_gateway_and_its_prefix_are_those_of_its_vlan() {
    let pool = "[[bridge]]\nname = \"br0\"\n[[pool]]\nname = \"p\"\nbridge = \"br0\"\n\
                vlan = VLAN\nprefix = \"10.8.64.0/24\"\n";
    let sent = [(0, 0, announce(ROUTER, GATEWAY)), (1, 0, announce(THIEF, GATEWAY))];
    for (vlan, kind) in [("0", "CONFLICT_KIND_GATEWAY"), ("5", "CONFLICT_KIND_DUPLICATE")] {
        let settings = configured(&pool.replace("VLAN", vlan), None).unwrap();
        let report = report(Format::Micro, &sent, &settings);
        assert_eq!(told(&report)[0].0, kind);
        assert_eq!(report.conflicts[0].conflict.bridge, "br0");
    }
}

const LEASES: &str = r#"{"leases":[
{"address":"10.8.64.2","bridge":"br0","vlan":0,"mac":"02:00:00:00:00:0a","interface":"v-a",
"sandbox":"web-1","binding":"declared","generation":7},
{"address":"10.8.64.3","bridge":"br0","mac":null,"interface":null,"sandbox":"web-2","binding":null}]}"#;

/// What would drop, and what drops, of a theft and of the owner's own frame.
#[test]
fn the_leases_say_what_is_dropped_and_of_the_owner_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.json");
    fs::write(&path, LEASES).unwrap();
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(THIEF, ADDRESS))];
    let of = |leases: bool, mode| {
        let mut settings = ingress();
        settings.enforcement.mode = mode;
        if leases {
            settings.lease(&path).unwrap();
        }
        report(Format::Next, &sent, &settings)
    };
    let row = |dropped, would_drop| Dropped {
        interface: "v-b".to_owned(),
        reason: "violation",
        dropped,
        would_drop,
    };
    assert_eq!(of(true, Mode::Observe).drops, [row(0, 1)]);
    let enforced = of(true, Mode::Enforce);
    assert_eq!(enforced.drops, [row(1, 0)]);
    assert_eq!(enforced.conflicts[0].conflict.kind(), proto::ConflictKind::Duplicate);
    // Nobody owns it: two who have it are a conflict, and nothing more.
    assert_eq!(of(false, Mode::Enforce).drops, []);
}
