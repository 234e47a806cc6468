//! Checks what says who is asked about the leases, and who waits for their end.

use std::{sync::Arc, time::Duration};

use super::{
    CheckError, containerd, file, inventory,
    place::{Fault, at},
};

/// More than any controller has; each is written with every release.
const MOST_SUBSCRIBERS: usize = 16;

pub(super) fn reconcile(
    section: &file::Reconcile,
) -> Result<guard_core::reconcile::Settings, Fault> {
    let refuse = |key: &str, what: &str| {
        let error = CheckError::Setting { section: "[reconcile]", what: what.to_owned() };
        at(format!("reconcile.{key}"))(error)
    };
    let file::Reconcile { interval, misses, max_reap_share } = *section;
    if interval.is_zero() {
        return Err(refuse("interval", "interval = 0 leaves no time for anything else"));
    }
    if misses == 0 {
        return Err(refuse(
            "misses",
            "misses = 0 would take leases back that were never looked at",
        ));
    }
    if !(0.0..=1.0).contains(&max_reap_share) {
        return Err(refuse(
            "max_reap_share",
            "max_reap_share is a share of a pool's leases: 0 to 1",
        ));
    }
    Ok(guard_core::reconcile::Settings { interval, misses, max_reap_share })
}

pub(super) fn containerd(section: file::Containerd) -> Result<containerd::Settings, Fault> {
    let file::Containerd { socket, namespace, sandbox_label, lifecycle_label, address_label } =
        section;
    let words = [
        ("namespace", &namespace),
        ("sandbox_label", &sandbox_label),
        ("lifecycle_label", &lifecycle_label),
        ("address_label", &address_label),
    ];
    for (key, word) in words {
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!("{key} = {word:?} is not a word of printable ASCII");
            let error = CheckError::Setting { section: "[inventory.containerd]", what };
            return Err(at(format!("inventory.containerd.{key}"))(error));
        }
    }
    Ok(containerd::Settings { socket, namespace, sandbox_label, lifecycle_label, address_label })
}

pub(super) fn watchdog(
    section: &file::Watchdog,
    sources: &inventory::Settings,
) -> Result<guard_core::watchdog::Settings, Fault> {
    let refuse = |key: &str, what: &str| {
        let error = CheckError::Setting { section: "[watchdog]", what: what.to_owned() };
        Err(at(format!("watchdog.{key}"))(error))
    };
    let file::Watchdog { enabled, interval, grace, stop_timeout } = *section;
    if enabled && sources.containerd.is_none() {
        return refuse(
            "enabled",
            "enabled = true has no containers to look after: add an [inventory.containerd] \
             section, or leave it out",
        );
    }
    if enabled && sources.directory.is_none() {
        return refuse(
            "enabled",
            "enabled = true has nobody to ask which sandboxes there are: add a [directory] \
             section, or leave it out",
        );
    }
    if interval.is_zero() {
        return refuse("interval", "interval = 0 leaves no time for anything else");
    }
    Ok(guard_core::watchdog::Settings { enabled, interval, grace, stop_timeout })
}

pub(super) fn subscribers(
    sections: Vec<file::Subscriber>,
) -> Result<Vec<(Arc<str>, Duration)>, Fault> {
    let refuse = |index: usize, what| {
        let error = CheckError::Setting { section: "[[subscriber]]", what };
        Err(at(format!("subscriber.{index}"))(error))
    };
    let mut all: Vec<(Arc<str>, Duration)> = Vec::with_capacity(sections.len());
    if sections.len() > MOST_SUBSCRIBERS {
        let what = format!("{} are too many: at most {MOST_SUBSCRIBERS}", sections.len());
        return refuse(MOST_SUBSCRIBERS, what);
    }
    for (index, file::Subscriber { name, hold_deadline }) in sections.into_iter().enumerate() {
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=253).contains(&name.len()) || !printable {
            let what = format!("{name:?} is not a name of 1 to 253 printable ASCII characters");
            return refuse(index, what);
        }
        if all.iter().any(|(known, _)| **known == *name) {
            return refuse(index, format!("{name:?} is there twice; merge the two sections"));
        }
        if hold_deadline.is_zero() {
            return refuse(index, format!("{name:?} gets no time: hold_deadline = 0"));
        }
        all.push((name.into(), hold_deadline));
    }
    Ok(all)
}
