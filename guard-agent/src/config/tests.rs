use std::fs;

use proptest::prelude::*;

use guard_core::lease::Controller;

use super::*;

const GOOD: &str = r#"
[[bridge]]
name = "rt0"
[[pool]]
name = "sandboxes"
bridge = "rt0"
prefix = "10.8.64.0/24"
"#;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| error.to_string())
}

fn refused(text: &str, parts: &[&str]) {
    let error = load(text).expect_err(text);
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn the_defaults_of_the_contract_stand() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.http.to_string(), "127.0.0.1:9477");
    assert_eq!(config.conflict.live_window, Duration::from_secs(300));
    assert_eq!(config.conflict.flap_window, Duration::from_secs(60));
    assert_eq!(config.conflict.flap_count.get(), 2);
    assert_eq!(config.quota.addresses_per_port.get(), 16);
    assert_eq!(config.quota.nd_per_second.get(), 50);
    assert_eq!(config.segments(), [Segment::new("rt0", 0)]);
    let pool = config.pools.iter().next().unwrap();
    assert_eq!(pool.spec().cooldown, Duration::from_secs(1800));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_line() {
    refused(&format!("{GOOD}colour = 1\n"), &["line 8", "unknown field `colour`"]);
}

#[test]
fn overlapping_pools_are_refused_as_numbers() {
    let second = "[[pool]]\nname = \"b\"\nbridge = \"rt0\"\nprefix = \"10.8.64.128/25\"\n";
    refused(&format!("{GOOD}{second}"), &["sandboxes", "\"b\"", "overlap"]);
}

#[test]
fn a_prefix_with_host_bits_is_taken_for_its_network_and_that_is_said() {
    let config = load(&GOOD.replace("10.8.64.0/24", "10.8.64.7/24")).unwrap();
    let said =
        "pool \"sandboxes\": prefix 10.8.64.7/24 has host bits and is taken for 10.8.64.0/24";
    assert_eq!(config.remarks, [said]);
    assert!(load(GOOD).unwrap().remarks.is_empty());
}

#[test]
fn what_is_no_prefix_is_shown_one() {
    let wrong = GOOD.replace("10.8.64.0/24", "10.8.64.0/33");
    refused(&wrong, &["\"10.8.64.0/33\" is not a prefix", "write it as \"10.8.64.0/24\""]);
}

#[test]
fn what_is_no_length_of_time_is_shown_one() {
    let wrong = format!("{GOOD}cooldown = \"5\"\n");
    refused(&wrong, &["line 8", "\"5\" is not a length of time", "\"5m\" or \"1h 30m\""]);
    let pool = load(&format!("{GOOD}cooldown = \"1day 12h\"\n")).unwrap().pools;
    assert_eq!(pool.iter().next().unwrap().spec().cooldown, Duration::from_hours(36));
}

#[test]
fn a_gateway_outside_its_prefix_is_refused() {
    refused(&format!("{GOOD}gateway = \"10.9.0.1\"\n"), &["sandboxes", "10.9.0.1"]);
}

#[test]
fn a_bridge_observes_and_binds_those_that_leases_name_unless_it_is_told_otherwise() {
    use guard_core::enforcement::{Class, Mode, Settings, Strict};
    let config = load(GOOD).unwrap();
    assert!(config.enforce.brake);
    assert_eq!(config.bridges[0].enforcement, Settings::default());
    let keys = "mode = \"enforce\"\nstrict = \"all\"\ndrop = [\"router\", \"ethertype\"]\n";
    let told = format!("[enforce]\nbrake = false\n[[bridge]]\nname = \"rt0\"\n{keys}");
    let config = load(&told).unwrap();
    assert!(!config.enforce.brake);
    let hygiene = [Class::Router, Class::Ethertype].into_iter().collect();
    let settings = Settings { mode: Mode::Enforce, strict: Strict::All, hygiene };
    assert_eq!(config.bridges[0].enforcement, settings);
    refused(&told.replace("\"router\"", "\"bpdu\""), &["line 7", "bpdu", "dhcp_server"]);
    refused(&told.replace("\"all\"", "\"most\""), &["line 6", "most", "bound"]);
}

#[test]
fn in_enforce_an_allow_rule_names_its_ports() {
    let bridge = |mode: &str| format!("[[bridge]]\nname = \"rt0\"\nmode = \"{mode}\"\n");
    for kind in ["shared", "vrrp"] {
        let rule = format!("[[bridge.allow]]\nkind = \"{kind}\"\naddresses = [\"10.8.64.9\"]\n");
        load(&format!("{}{rule}", bridge("observe"))).unwrap();
        refused(&format!("{}{rule}", bridge("enforce")), &["line 4", kind, "name its ports"]);
        load(&format!("{}{rule}ports = [\"a\", \"b\"]\n", bridge("enforce"))).unwrap();
    }
}

#[test]
fn a_pool_needs_its_bridge() {
    refused(&GOOD.replace("bridge = \"rt0\"", "bridge = \"rt1\""), &["rt1", "[[bridge]]"]);
    refused("", &["[[bridge]]"]);
    refused(&format!("{GOOD}[[bridge]]\nname = \"rt0\"\n"), &["twice"]);
    refused("[[bridge]]\nname = \"a/b\"\n", &["interface name"]);
}

#[test]
fn a_limit_of_none_at_all_is_refused_and_the_line_is_named() {
    for key in ["addresses_per_port", "nd_per_second"] {
        refused(&format!("[quota]\n{key} = 0\n{GOOD}"), &["line 2", key, "nonzero"]);
    }
    refused(&format!("[conflict]\nflap_count = 0\n{GOOD}"), &["line 2", "nonzero"]);
    for key in ["live_window", "quiet", "flap_window"] {
        refused(&format!("[conflict]\n{key} = \"0s\"\n{GOOD}"), &[key, "0s"]);
    }
}

fn with_rule(rule: &str) -> String {
    GOOD.replace("name = \"rt0\"\n", &format!("name = \"rt0\"\n[[bridge.allow]]\n{rule}\n"))
}

#[test]
fn an_allow_rule_names_what_it_allows_and_to_whom_it_must() {
    let text = with_rule("kind = \"vrrp\"\naddresses = [\"10.8.64.5\", \"10.8.64.32/28\"]");
    let rule = load(&text).unwrap().bridges[0].allow[0].clone();
    assert!(rule.names(0, [10, 8, 64, 5].into()) && rule.names(0, [10, 8, 64, 47].into()));
    assert!(!rule.names(0, [10, 8, 64, 6].into()) && !rule.names(7, [10, 8, 64, 5].into()));
    assert!(rule.is_for("any"));

    refused(&with_rule("kind = \"carp\""), &["line 5", "carp", "vrrp"]);
    refused(&with_rule("kind = \"shared\""), &["rt0", "shared", "addresses"]);
    for kind in ["router", "proxy"] {
        let rule = format!("kind = {kind:?}\naddresses = [\"10.8.64.5\"]");
        refused(&with_rule(&rule), &[kind, "ports"]);
    }
    let rule = "kind = \"shared\"\naddresses = [\"10.8.64\"]";
    refused(&with_rule(rule), &["\"10.8.64\"", "neither"]);
    let many = "\n[[bridge.allow]]\nkind = \"router\"\nports = [\"r\"]".repeat(MAX_RULES);
    let rule = format!("kind = \"router\"\nports = [\"r\"]{many}");
    refused(&with_rule(&rule), &["33", "32"]);
}

#[test]
fn what_is_on_the_link_besides_pools_is_named_with_its_vlan_or_without() {
    let with = |prefixes: &str| format!("[[bridge]]\nname = \"b\"\nprefixes = [{prefixes}]\n");
    let text = with("\"192.0.2.7/24\", { prefix = \"2001:db8::/64\", vlan = 5 }");
    let config = load(&text).unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let on_link = [(0, net("192.0.2.0/24")), (5, net("2001:db8::/64"))];
    assert_eq!(config.bridges[0].prefixes, on_link);
    assert!(config.pools.iter().next().is_none() && config.segments().is_empty());
    let segments = on_link.map(|(vlan, net)| (Segment::new("b", vlan), net));
    assert_eq!(config.prefixes(), segments);

    refused(&with("\"192.0.2.0/33\""), &["line 3", "\"192.0.2.0/33\" is not a prefix"]);
    refused(&with("\"::ffff:192.0.2.0/120\""), &["line 3", "not a prefix"]);
    refused(&with("{ prefix = \"192.0.2.0/24\", vlan = 4095 }"), &["line 3", "4095"]);
    refused(&with("{ net = \"192.0.2.0/24\" }"), &["line 3", "{ prefix, vlan }"]);
}

#[test]
fn a_gateway_is_given_only_to_ports_that_are_named() {
    let rule = "kind = \"vrrp\"\naddresses = [\"10.8.64.0/28\"]";
    refused(&with_rule(rule), &["10.8.64.1", "gateway", "ports"]);
    load(&with_rule(&format!("{rule}\nports = [\"a\", \"b\"]"))).unwrap();
}

#[test]
fn a_gateway_that_is_a_guest_has_ports_of_its_own() {
    let pools = |more: &str| format!("{GOOD}{more}");
    let second = |more: &str| {
        pools(&format!(
            "[[pool]]\nname = \"q\"\nbridge = \"rt0\"\nvlan = 9\nprefix = \"10.9.0.0/24\"\n{more}"
        ))
    };
    let homes = |config: &Config| -> Vec<_> {
        let mut homes = config.gateways();
        homes.sort();
        homes.into_iter().map(|((segment, address), bit)| (segment.vlan, address, bit)).collect()
    };
    let guest = load(&second("gateway_ports = [\"veth-r*\"]\n")).unwrap();
    assert!(homes(&guest).contains(&(9, [10, 9, 0, 1].into(), 1)), "{:?}", homes(&guest));
    let none = load(&second("gateway = \"none\"\n")).unwrap();
    assert!(homes(&none).iter().all(|(vlan, ..)| *vlan != 9), "{:?}", homes(&none));
    refused(&second("gateway = \"none\"\ngateway_ports = [\"r\"]\n"), &["\"q\"", "no gateway"]);
    refused(&second("gateway = \"nobody\"\n"), &["nobody", "none"]);
}

#[test]
fn sources_are_asked_where_they_have_a_section() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.reconcile.interval, Duration::from_secs(300));
    assert_eq!((config.reconcile.misses, config.reconcile.max_reap_share), (3, 0.2));
    assert!(config.sources == inventory::Settings::default() && config.subscribers.is_empty());
    let all = "[inventory.containerd]\nnamespace = \"k8s.io\"\n\
               [directory]\nsocket = \"/run/d.sock\"\n\
               [[subscriber]]\nname = \"nfs-proxy\"\n";
    let config = load(&format!("{GOOD}{all}")).unwrap();
    let containerd = config.sources.containerd.unwrap();
    assert_eq!(containerd.namespace, "k8s.io");
    assert_eq!(containerd.address_label, "runtime.computer/ip");
    let directory = inventory::Directory { socket: "/run/d.sock".into(), uid: None };
    assert_eq!(config.sources.directory, Some(directory));
    assert_eq!(config.subscribers, [(Arc::from("nfs-proxy"), Duration::from_secs(120))]);
}

#[test]
fn a_reconciler_that_would_take_everything_is_refused() {
    refused(&format!("{GOOD}[reconcile]\nmisses = 0\n"), &["[reconcile]", "misses"]);
    refused(&format!("{GOOD}[reconcile]\nmax_reap_share = 20\n"), &["max_reap_share", "0 to 1"]);
    refused(&format!("{GOOD}[reconcile]\ninterval = \"0s\"\n"), &["interval"]);
    refused(&format!("{GOOD}[inventory.containerd]\naddress_label = \"\"\n"), &["address_label"]);
    let twice = "[[subscriber]]\nname = \"a\"\n".repeat(2);
    refused(&format!("{GOOD}{twice}"), &["[[subscriber]]", "twice"]);
}

#[test]
fn a_watchdog_without_anybody_to_ask_is_refused() {
    let config = load(GOOD).unwrap();
    let guard_core::watchdog::Settings { enabled, interval, grace, stop_timeout } = config.watchdog;
    assert!(!enabled);
    let spans = [interval, grace, stop_timeout].map(|span| span.as_secs());
    assert_eq!(spans, [300, 180, 5]);
    let enabled = format!("{GOOD}[watchdog]\nenabled = true\n");
    let (containerd, directory) = ("[inventory.containerd]\n", "[directory]\nsocket = \"/d\"\n");
    refused(&enabled, &["[watchdog]", "enabled", "[inventory.containerd]"]);
    refused(&format!("{enabled}{directory}"), &["[watchdog]", "[inventory.containerd]"]);
    refused(&format!("{enabled}{containerd}"), &["[watchdog]", "enabled", "[directory]"]);
    assert!(load(&format!("{enabled}{containerd}{directory}")).unwrap().watchdog.enabled);
    refused(&format!("{GOOD}[watchdog]\ninterval = \"0s\"\n"), &["[watchdog]", "interval"]);
    refused(&format!("{GOOD}[watchdog]\ndry_run = true\n"), &["dry_run"]);
}

#[test]
fn whatever_is_wrong_its_line_is_named() {
    let allow = "[[bridge.allow]]\nkind = \"shared\"\n";
    for (piece, line) in [
        ("[[bridge]]\nname = \"a b\"\n", 2),
        ("[[bridge]]\nname = \"b\"\nuplinks = [\n\"ok\",\n\"/\",\n]\n", 5),
        ("[[bridge]]\nname = \"b\"\nuplinks = [\"p\"]\naccess = [\n\"q\",\n\"p\",\n]\n", 6),
        ("[[bridge]]\nname = \"b\"\nmode = \"block\"\n", 3),
        ("[[bridge]]\nname = \"b\"\n[[bridge]]\nname = \"b\"\n", 4),
        (&format!("[[bridge]]\nname = \"b\"\n{allow}addresses = [\"x\"]\n"), 3),
        (
            "[[bridge]]\nname = \"b\"\n[[pool]]\nname = \"p\"\nbridge = \"c\"\nprefix = \"10.0.0.0/8\"\n",
            5,
        ),
        (
            "[[bridge]]\nname = \"b\"\n[[pool]]\nname = \"p\"\nbridge = \"b\"\nprefix = \"224.0.0.0/8\"\n",
            6,
        ),
        ("[[bridge]]\nname = \"b\"\n[[pool]]\nname = \"p\"\nbridge = \"b\"\nprefix = \"x\"\n", 6),
        ("[reconcile]\nmisses = 0\n[[bridge]]\nname = \"b\"\n", 2),
        ("[conflict]\n\nquiet = \"0s\"\n", 3),
        ("[access]\nadmin_uids = [-1]\n", 2),
        ("[[subscriber]]\nname = \"\"\n[[bridge]]\nname = \"b\"\n", 1),
        ("[access]\ncontroller_uids = [7]\n[[controller]]\nuid = 7\n[[bridge]]\nname = \"b\"\n", 4),
        ("[[controller]]\nuid = 7\npools = [\"p\"]\n[[bridge]]\nname = \"b\"\n", 3),
        ("[[controller]]\nuid = 7\nsubscriber = \"s\"\n[[bridge]]\nname = \"b\"\n", 3),
        ("[inventory.containerd]\nnamespace = \"\"\n[[bridge]]\nname = \"b\"\n", 2),
        ("http = 9477\n", 1),
        ("socket = \"/a\"\nreader_socket = \"/a\"\n", 2),
        ("http = \"unix:http.sock\"\n", 1),
        ("[log]\nformat = \"xml\"\n", 2),
        ("state_dir =\n", 1),
    ] {
        refused(piece, &[&format!("line {line}")]);
    }
    let pool = |name: &str, rest: &str| {
        format!("[[pool]]\nname = {name:?}\nbridge = \"rt0\"\nprefix = \"10.9.0.0/24\"\n{rest}")
    };
    // GOOD has seven lines.
    for (rest, line) in [
        (pool("a", "vlan = 5000\n"), 12),
        (pool("a", "gateway = \"10.8.0.1\"\n"), 12),
        (pool("a", "max_attempts = 0\n"), 12),
        (pool("a", "exclude = [\"10.9.0.9-10.9.0.2\"]\n"), 12),
        (pool("a", "") + &pool("b", ""), 15),
        (pool("a", "") + &pool("a", "vlan = 7\n"), 13),
    ] {
        refused(&format!("{GOOD}{rest}"), &[&format!("line {line}")]);
    }
}

#[test]
fn a_controller_has_its_pools_and_its_subscriber_and_by_number_alone_all_pools() {
    let text = "[access]\ncontroller_uids = [7, 7]\n[[subscriber]]\nname = \"proxy\"\n\
                [[controller]]\nuid = 8\npools = [\"sandboxes\"]\nsubscriber = \"proxy\"\n\
                shared = true\n";
    let access = load(&format!("{GOOD}{text}")).unwrap().access;
    assert!(!access.is_for_root_alone());
    let all: Vec<_> = access.controllers.iter().cloned().collect();
    let of = |uid| Controller { uid, pools: None, subscriber: None, shared: false };
    let (pools, subscriber) = (Some(vec!["sandboxes".into()]), Some("proxy".into()));
    assert_eq!(all, [of(7), Controller { pools, subscriber, shared: true, ..of(8) }]);
}

#[test]
fn what_can_change_while_the_agent_runs_does_and_the_rest_is_named() {
    let old = load(GOOD).unwrap();
    let (same, changes) = old.changed_to(load(GOOD).unwrap());
    assert!(changes.is_empty() && same.pools == old.pools);
    let new = format!(
        "http = \"127.0.0.1:1\"\n{GOOD}cooldown = \"1m\"\nexclude = [\"10.8.64.9\"]\n\
         [[pool]]\nname = \"more\"\nbridge = \"rt0\"\nprefix = \"10.9.0.0/24\"\n\
         [reconcile]\ninterval = \"1m\"\n[access]\nreader_gids = [7]\n[quota]\nnd_per_second = 9\n"
    );
    let (config, changes) = old.changed_to(load(&new).unwrap());
    let said = |applied| -> Vec<_> {
        let changes = changes.iter().filter(|change| change.applied == applied);
        changes.map(|change| change.what.split(':').next().unwrap()).collect()
    };
    let pool = "[[pool]] \"sandboxes\"";
    let live = [
        &format!("{pool} cooldown"),
        &format!("{pool} exclude"),
        "[reconcile]",
        "[access] or [[controller]]",
    ];
    assert_eq!(said(true), live);
    assert_eq!(said(false), ["http", "[quota]", "[[pool]] \"more\", which is new"]);
    let sandboxes = config.pools.get("sandboxes").unwrap();
    assert_eq!(sandboxes.spec().cooldown, Duration::from_secs(60));
    assert_eq!(sandboxes.capacity(), 252);
    assert_eq!((&config.http, config.access.reader_gids), (&old.http, vec![7]));
    assert!(config.pools.get("more").is_none() && config.quota == old.quota);
}

#[test]
fn a_pool_that_would_be_another_one_keeps_all_its_settings() {
    let old = load(GOOD).unwrap();
    let new = GOOD.replace("10.8.64.0/24", "10.8.64.0/25") + "cooldown = \"1m\"\n";
    let (config, changes) = old.changed_to(load(&new).unwrap());
    assert_eq!(config.pools, old.pools);
    assert!(changes.iter().all(|change| !change.applied) && changes.len() == 1, "{changes:?}");
    let (config, changes) = old.changed_to(load("[[bridge]]\nname = \"rt0\"\n").unwrap());
    assert!(config.pools == old.pools && changes[0].what.contains("gone"), "{changes:?}");
}

#[test]
fn what_a_rule_that_waits_takes_out_of_a_pool_waits_with_it() {
    let old = load(GOOD).unwrap();
    let new = with_rule("kind = \"vrrp\"\naddresses = [\"10.8.64.5\"]") + "cooldown = \"1m\"\n";
    let (config, changes) = old.changed_to(load(&new).unwrap());
    assert_eq!(config.pools.get("sandboxes").unwrap().capacity(), 253);
    let waits = changes.iter().filter(|change| !change.applied);
    let waits: Vec<_> = waits.map(|change| change.what.as_str()).collect();
    assert_eq!(waits, ["[[bridge]]", "[[pool]] \"sandboxes\" exclude"]);
}

/// A configuration with something done to it: a piece cut out, doubled, or replaced.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof!["[\\PC\\n]{0,12}", "[\\[\\]=\"#.,{}0-9a-z \\n-]{0,12}"];
    (any::<prop::sample::Index>(), 0_usize..40, piece, any::<bool>()).prop_map(
        |(at, cut, piece, examples)| {
            let mut text: Vec<char> = commented_defaults().chars().collect();
            if examples {
                // Settings in place of the examples, which stand behind `#` and no space.
                text = text.iter().collect::<String>().replace("\n#[", "\n[").chars().collect();
            }
            let at = at.index(text.len());
            let end = text.len().min(at + cut);
            text.splice(at..end, piece.chars());
            text.into_iter().collect()
        },
    )
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_line(text in damaged()) {
        match load(&text) {
            Ok(config) => prop_assert!(!config.bridges.is_empty()),
            Err(error) => prop_assert!(
                error.contains("line ") || error.contains("there is no [[bridge]] section"),
                "{error}"
            ),
        }
    }

    #[test]
    fn what_is_no_configuration_at_all_is_refused(text in "\\PC{0,200}") {
        let _ = load(&text);
    }
}
