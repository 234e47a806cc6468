//! What becomes of a configuration when its file changes: what the agent takes over while it runs, and
//! what waits for its next start.

use std::fmt::Debug;

use guard_core::{
    enforcement::{Class, Hygiene, Settings},
    lease::{Pool, PoolSpec, Pools},
};

use super::{Bridge, Config};

/// A setting that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which setting, and where it can be said briefly, from what to what.
    pub what: String,
    /// It holds from now on; else from the next start on.
    pub applied: bool,
}

/// The bridges without what can change while the agent runs, and without what the pools say.
fn sections(bridges: &[Bridge]) -> Vec<Bridge> {
    let others = |bridge: &Bridge| Bridge {
        homes: Vec::new(),
        enforcement: Settings::default(),
        exceptions: Vec::new(),
        ..bridge.clone()
    };
    bridges.iter().map(others).collect()
}

/// Compares settings one by one.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn live<T: PartialEq + Debug>(&mut self, what: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(Change { what: format!("{what}: {old:?} → {new:?}"), applied: true });
        }
    }

    fn waits<T: PartialEq>(&mut self, what: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(Change { what: what.to_owned(), applied: false });
        }
    }
}

impl Config {
    /// What this configuration becomes where the file says `new`, and what differs.
    pub fn changed_to(&self, new: Self) -> (Self, Vec<Change>) {
        let Self {
            state_dir,
            socket,
            reader_socket,
            bpffs,
            http,
            log_format,
            boot_timeout,
            source_stale,
            when_degraded,
            conflict,
            quota,
            enforce,
            bridges,
            pools,
            reconcile,
            sources,
            watchdog,
            subscribers,
            access,
            remarks,
        } = new;
        let mut changes = Changes::default();
        changes.waits("state_dir", &self.state_dir, &state_dir);
        changes.waits("socket", &self.socket, &socket);
        changes.waits("reader_socket", &self.reader_socket, &reader_socket);
        changes.waits("bpffs", &self.bpffs, &bpffs);
        changes.waits("http", &self.http, &http);
        changes.waits("[log] format", &self.log_format, &log_format);
        changes.waits("[allocate] boot_timeout", &self.boot_timeout, &boot_timeout);
        changes.live("[allocate] source_stale", &self.source_stale, &source_stale);
        changes.live("[allocate] when_degraded", &self.when_degraded, &when_degraded);
        changes.waits("[conflict]", &self.conflict, &conflict);
        changes.waits("[quota]", &self.quota, &quota);
        let homes = |bridges: &[Bridge]| -> Vec<_> {
            bridges.iter().map(|bridge| bridge.homes.clone()).collect()
        };
        changes.waits("[[bridge]]", &sections(&self.bridges), &sections(&bridges));
        changes.live("[enforce]", &self.enforce, &enforce);
        let enforcing = self.enforcing(&bridges, &mut changes);
        changes.waits("[[pool]] gateway_ports", &homes(&self.bridges), &homes(&bridges));
        let pools = self.changed_pools(&pools, &bridges, &mut changes);
        changes.live("[reconcile]", &self.reconcile, &reconcile);
        changes.waits("[inventory] or [directory]", &self.sources, &sources);
        changes.waits("[watchdog]", &self.watchdog, &watchdog);
        changes.live("[[subscriber]]", &self.subscribers, &subscribers);
        changes.live("[access] or [[controller]]", &self.access, &access);
        let changed = Self {
            source_stale,
            when_degraded,
            enforce,
            bridges: enforcing,
            pools,
            reconcile,
            subscribers,
            access,
            remarks,
            ..self.clone()
        };
        (changed, changes.0)
    }

    /// The bridges that there are, with what they drop from now on.
    fn enforcing(&self, new: &[Bridge], changes: &mut Changes) -> Vec<Bridge> {
        let bridge = |old: &Bridge| {
            let Some(new) = new.iter().find(|new| new.name == old.name) else { return old.clone() };
            let Settings { mode, strict, hygiene } = &new.enforcement;
            let (was, name) = (&old.enforcement, &old.name);
            let names = |hygiene: &Hygiene| hygiene.iter().map(Class::name).collect::<Vec<_>>();
            let of_bridge = |key: &str| format!("[[bridge]] {name:?} {key}");
            changes.live(&of_bridge("mode"), &was.mode.name(), &mode.name());
            changes.live(&of_bridge("strict"), &was.strict.name(), &strict.name());
            changes.live(&of_bridge("drop"), &names(&was.hygiene), &names(hygiene));
            changes.live(&of_bridge("allow"), &old.exceptions, &new.exceptions);
            let (enforcement, exceptions) = (new.enforcement.clone(), new.exceptions.clone());
            Bridge { enforcement, exceptions, ..old.clone() }
        };
        self.bridges.iter().map(bridge).collect()
    }

    /// The pools that there are, with such new settings as do not make another pool of them.
    fn changed_pools(&self, new: &Pools, bridges: &[Bridge], changes: &mut Changes) -> Pools {
        for pool in new {
            if self.pools.get(pool.name()).is_none() {
                changes.waits(&format!("[[pool]] {:?}, which is new", pool.name()), &false, &true);
            }
        }
        let pool = |old: &Pool| {
            let name = old.name();
            let Some(new) = new.get(name) else {
                changes.waits(&format!("[[pool]] {name:?}, which is gone"), &false, &true);
                return old.clone();
            };
            let PoolSpec {
                name: _,
                segment,
                prefix,
                gateway,
                exclude,
                cooldown,
                cooldown_bypass,
                unconfirmed_ttl,
                probation,
                max_attempts,
                slaac,
            } = new.spec();
            let was = old.spec();
            let of_pool = |key: &str| format!("[[pool]] {name:?} {key}");
            let identity = (&was.segment, was.prefix, was.gateway);
            if identity != (segment, *prefix, *gateway) {
                changes.waits(&of_pool("bridge, vlan, prefix or gateway"), &false, &true);
                return old.clone();
            }
            changes.live(&of_pool("cooldown"), &was.cooldown, cooldown);
            changes.live(&of_pool("cooldown_bypass"), &was.cooldown_bypass, cooldown_bypass);
            changes.live(&of_pool("unconfirmed_ttl"), &was.unconfirmed_ttl, unconfirmed_ttl);
            changes.live(&of_pool("probation"), &was.probation, probation);
            changes.live(&of_pool("max_attempts"), &was.max_attempts, max_attempts);
            changes.waits(&of_pool("slaac"), &was.slaac, slaac);
            // What allow rules name is excluded, too, and those rules wait.
            let exclude = if sections(&self.bridges) == sections(bridges) {
                changes.live(&of_pool("exclude"), &was.exclude, exclude);
                exclude
            } else {
                changes.waits(&of_pool("exclude"), &was.exclude, exclude);
                &was.exclude
            };
            Pool::new(PoolSpec { exclude: exclude.clone(), slaac: was.slaac, ..new.spec().clone() })
                .expect("each part of it was checked, and they do not depend on each other")
        };
        let pools = self.pools.iter().map(pool).collect();
        Pools::new(pools).expect("prefixes and names are as they were")
    }
}
