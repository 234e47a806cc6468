//! Checks what says who is asked about the leases, and who waits for their end.

use std::{sync::Arc, time::Duration};

use super::{CheckError, file};
use crate::{
    inventory::{self, containerd},
    reconcile, watchdog,
};

/// More than any controller has; each is written with every release.
const MOST_SUBSCRIBERS: usize = 16;

pub(super) fn reconcile(section: &file::Reconcile) -> Result<reconcile::Settings, CheckError> {
    let refuse = |what: &str| CheckError::Setting { section: "[reconcile]", what: what.to_owned() };
    let file::Reconcile { interval, misses, max_reap_share } = *section;
    if interval.is_zero() {
        return Err(refuse("interval = 0 leaves no time for anything else"));
    }
    if misses == 0 {
        return Err(refuse("misses = 0 would take leases back that were never looked at"));
    }
    if !(0.0..=1.0).contains(&max_reap_share) {
        return Err(refuse("max_reap_share is a share of a pool's leases: 0 to 1"));
    }
    Ok(reconcile::Settings { interval, misses, max_reap_share })
}

pub(super) fn containerd(section: file::Containerd) -> Result<containerd::Settings, CheckError> {
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
            return Err(CheckError::Setting { section: "[inventory.containerd]", what });
        }
    }
    Ok(containerd::Settings { socket, namespace, sandbox_label, lifecycle_label, address_label })
}

pub(super) fn watchdog(
    section: &file::Watchdog,
    sources: &inventory::Settings,
) -> Result<watchdog::Settings, CheckError> {
    let refuse =
        |what: &str| Err(CheckError::Setting { section: "[watchdog]", what: what.to_owned() });
    let file::Watchdog { enabled, interval, grace, stop_timeout } = *section;
    if enabled && sources.containerd.is_none() {
        return refuse(
            "enabled = true has no containers to look after: add an [inventory.containerd] \
             section, or leave it out",
        );
    }
    if enabled && sources.directory.is_none() {
        return refuse(
            "enabled = true has nobody to ask which sandboxes there are: add a [directory] \
             section, or leave it out",
        );
    }
    if interval.is_zero() {
        return refuse("interval = 0 leaves no time for anything else");
    }
    Ok(watchdog::Settings { enabled, interval, grace, stop_timeout })
}

pub(super) fn subscribers(
    sections: Vec<file::Subscriber>,
) -> Result<Vec<(Arc<str>, Duration)>, CheckError> {
    let refuse = |what| Err(CheckError::Setting { section: "[[subscriber]]", what });
    let mut all: Vec<(Arc<str>, Duration)> = Vec::with_capacity(sections.len());
    if sections.len() > MOST_SUBSCRIBERS {
        return refuse(format!("{} are too many: at most {MOST_SUBSCRIBERS}", sections.len()));
    }
    for file::Subscriber { name, hold_deadline } in sections {
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=253).contains(&name.len()) || !printable {
            return refuse(format!(
                "{name:?} is not a name of 1 to 253 printable ASCII characters"
            ));
        }
        if all.iter().any(|(known, _)| **known == *name) {
            return refuse(format!("{name:?} is there twice; merge the two sections"));
        }
        if hold_deadline.is_zero() {
            return refuse(format!("{name:?} gets no time: hold_deadline = 0"));
        }
        all.push((name.into(), hold_deadline));
    }
    Ok(all)
}
