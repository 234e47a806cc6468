//! The commented default configuration, from the settings' own descriptions and defaults.

use documented::{Documented, DocumentedFields};
use guard_core::{enforcement::ExceptionKind, lease::PoolSpec, segment::Segment};
use serde::Serialize;

use super::file;

/// What the example pool is like.
const PREFIX: &str = "10.8.64.0/24";

/// The file that says nothing but the defaults. What has none, and so has to be said or is left out, is
/// shown as an example: a setting behind `#` and no space.
pub fn commented_defaults() -> String {
    let file::File {
        state_dir: _,
        socket: _,
        reader_socket: _,
        bpffs: _,
        http: _,
        log,
        allocate,
        conflict,
        quota,
        enforce,
        bridge: _,
        pool: _,
        reconcile,
        inventory: file::Inventory { containerd: _ },
        directory: _,
        watchdog,
        subscriber: _,
        controller: _,
        access,
    } = &file::File::default();
    let mut out = String::new();
    section(&mut out, "", &file::File::default(), false);
    section(&mut out, "[log]", log, false);
    section(&mut out, "[allocate]", allocate, false);
    section(&mut out, "[conflict]", conflict, false);
    section(&mut out, "[quota]", quota, false);
    section(&mut out, "[enforce]", enforce, false);
    section(&mut out, "[reconcile]", reconcile, false);
    section(&mut out, "[watchdog]", watchdog, false);
    section(&mut out, "[access]", access, false);
    section(&mut out, "[[bridge]]", &bridge(), true);
    section(&mut out, "[[bridge.allow]]", &allow(), true);
    section(&mut out, "[[pool]]", &pool(), true);
    section(&mut out, "[inventory.containerd]", &file::Containerd::default(), true);
    let socket = "/run/controller/directory.sock".into();
    let directory = file::Directory { socket, uid: Some(990) };
    section(&mut out, "[directory]", &directory, true);
    let name = "nfs-proxy".to_owned();
    let subscriber = file::Subscriber { name, hold_deadline: file::hold_deadline() };
    section(&mut out, "[[subscriber]]", &subscriber, true);
    section(&mut out, "[[controller]]", &controller(), true);
    out
}

/// One section: its description, its header, and each setting with its own.
fn section<T: Serialize + Documented + DocumentedFields>(
    out: &mut String,
    header: &str,
    settings: &T,
    example: bool,
) {
    let mark = if example { "#" } else { "" };
    let text = toml::to_string(settings).expect("settings are tables of plain values");
    if !out.is_empty() {
        out.push('\n');
    }
    describe(out, T::DOCS);
    if header.is_empty() {
        out.push('\n');
    } else {
        *out += &format!("{mark}{header}\n");
    }
    // What follows are sections of their own.
    let own = text.lines().take_while(|line| !line.starts_with('['));
    for line in own.filter(|line| !line.is_empty()) {
        let (key, _) = line.split_once(" = ").expect("a value without line breaks is one line");
        describe(out, T::get_field_docs(key).expect("a setting is a field of its section"));
        *out += &format!("{mark}{line}\n");
    }
}

fn describe(out: &mut String, text: &str) {
    for line in text.lines() {
        *out += &format!("# {line}\n");
    }
}

fn bridge() -> file::Bridge {
    let name = "rt0".to_owned();
    let (mode, strict, drop) = Default::default();
    let (uplinks, access, prefixes, allow) = Default::default();
    file::Bridge { name, mode, strict, drop, uplinks, access, prefixes, allow }
}

fn controller() -> file::Controller {
    let (pools, subscriber) = (vec!["sandboxes".to_owned()], Some("nfs-proxy".to_owned()));
    file::Controller { uid: 990, pools, subscriber, shared: false }
}

fn allow() -> file::Allow {
    let addresses = vec!["10.8.64.5".to_owned()];
    let (macs, vrids, ports, sandboxes) = Default::default();
    let kind = ExceptionKind::Vrrp;
    file::Allow { kind, vlan: 0, addresses, macs, any: 0, vrids, ports, sandboxes }
}

fn pool() -> file::Pool {
    let prefix = PREFIX.parse().expect("it is a prefix");
    let segment = Segment::new(bridge().name, 0);
    let default = guard_core::lease::Pool::new(PoolSpec::new("sandboxes", segment, prefix));
    let pool = default.expect("it is a prefix of hosts");
    let default = pool.spec().clone();
    file::Pool {
        name: default.name.to_string(),
        bridge: default.segment.bridge.to_string(),
        vlan: default.segment.vlan,
        prefix,
        gateway: pool.gateway().map(file::Gateway::Is),
        gateway_ports: Vec::new(),
        exclude: Vec::new(),
        cooldown: Some(default.cooldown),
        cooldown_bypass: Some(default.cooldown_bypass),
        unconfirmed_ttl: Some(default.unconfirmed_ttl),
        probation: Some(default.probation),
        max_attempts: Some(default.max_attempts),
        slaac: Some(default.slaac),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_says_the_defaults_and_nothing_else() {
        let text = commented_defaults();
        let parsed: file::File = toml::from_str(&text).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", file::File::default()));
        expect_test::expect_file!["../../../docs/agent.toml"].assert_eq(&text);
    }

    #[test]
    fn the_examples_make_a_configuration_that_is_right() {
        let text = commented_defaults();
        let with_examples = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
            _ => line.to_owned(),
        };
        let text: Vec<_> = text.lines().map(with_examples).collect();
        let file: file::File = toml::from_str(&text.join("\n")).unwrap();
        let file::Pool { name, gateway, .. } = &file.pool[0];
        assert_eq!(
            (name.as_str(), gateway.unwrap().to_string()),
            ("sandboxes", "10.8.64.1".into())
        );
        assert!(file.directory.is_some() && file.inventory.containerd.is_some());
        super::super::Config::check(file).unwrap();
    }
}
