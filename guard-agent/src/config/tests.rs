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
