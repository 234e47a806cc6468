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
fn a_gateway_outside_its_prefix_is_refused() {
    refused(&format!("{GOOD}gateway = \"10.9.0.1\"\n"), &["sandboxes", "10.9.0.1"]);
}

#[test]
fn enforce_is_not_available_yet() {
    refused("[[bridge]]\nname = \"rt0\"\nmode = \"enforce\"\n", &["not available", "observe"]);
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
fn a_gateway_is_given_only_to_ports_that_are_named() {
    let rule = "kind = \"vrrp\"\naddresses = [\"10.8.64.0/28\"]";
    refused(&with_rule(rule), &["10.8.64.1", "gateway", "ports"]);
    load(&with_rule(&format!("{rule}\nports = [\"a\", \"b\"]"))).unwrap();
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
    assert_eq!(config.sources.directory, Some("/run/d.sock".into()));
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
    let watchdog::Settings { enabled, interval, grace, stop_timeout } = config.watchdog;
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
