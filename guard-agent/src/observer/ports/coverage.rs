//! Whether guard's program is the first on a port, and what is done where it is not.

use super::*;

impl Ports {
    /// The program sees every frame of a port.
    pub(super) fn is_first(&mut self, ifindex: u32, status: PortStatus) -> PortStatus {
        let counts = self.counts(ifindex, status.slot);
        self.hooks.entry(ifindex).or_default().covered(counts);
        PortStatus { why: None, ..status }
    }

    /// What another program before ours ends, ours does not see. It is put in front again, unless the
    /// other does the same again and again.
    pub(super) fn is_behind(
        &mut self,
        ifindex: u32,
        status: PortStatus,
        other: &str,
    ) -> Result<PortStatus, KernelError> {
        let port = &status.port;
        let counts = self.counts(ifindex, status.slot);
        let hook = self.hooks.entry(ifindex).or_default();
        if !hook.has_seen_all(counts) {
            let segment = Segment::new(port.bridge.clone(), 0);
            self.reporter.hidden(&segment, claimant(ifindex, port), other, clock::now());
        } else if !std::mem::replace(&mut hook.noted, true) {
            tracing::info!(
                port = %port.interface, ifindex, other,
                "another program was put before ours, and has passed every frame on so far"
            );
        }
        if hook.contested(Instant::now()) {
            let coverage = self.kernel.put_first(ifindex, &port.interface)?;
            if coverage.place(ifindex).map_err(refused(port))? == Place::First {
                let status = PortStatus { coverage: Some(coverage), ..status };
                return Ok(self.is_first(ifindex, status));
            }
        }
        let why = format!("{other} is before the program, which sees what that lets pass");
        Ok(PortStatus { why: Some(why.into()), ..status })
    }

    /// How many frames a port has received, and how many of them the program has seen.
    pub(super) fn counts(&self, ifindex: u32, slot: u32) -> Option<Counts> {
        let received = received(ifindex).ok()?;
        Some(Counts { received, seen: self.counters.frames(slot) })
    }

    /// Looks at ports where something was found to be wrong, and puts it right. Returns whether frames
    /// may have passed unseen.
    pub(crate) fn repair(&mut self, found: &[u32]) -> bool {
        let mut lost = false;
        for ifindex in found {
            // It may be gone by now, and netlink reports its end.
            let Some(status) = self.shared.read().get(ifindex).cloned() else { continue };
            let port = status.port.clone();
            let Some(coverage) = status.coverage else {
                self.cover(*ifindex, &port);
                continue;
            };
            // What was found is a moment old: the program may have been put there since, or taken off
            // by this agent.
            let status = match coverage.place(*ifindex) {
                Ok(Place::First) => Ok(self.is_first(*ifindex, status)),
                Ok(Place::Behind(other)) => {
                    lost = true;
                    self.is_behind(*ifindex, status, &other)
                }
                Ok(Place::Off) if exists(*ifindex) => {
                    let why = "the program was taken off it by someone else; it is put back";
                    self.health.degraded(&what(&port), why);
                    let segment = Segment::new(port.bridge.clone(), 0);
                    let gap = "the program was taken off by someone else";
                    self.reporter.hidden(&segment, claimant(*ifindex, &port), gap, clock::now());
                    lost = true;
                    self.cover(*ifindex, &port);
                    continue;
                }
                Err(error) if exists(*ifindex) => Err(refused(&port)(error)),
                Ok(Place::Off) | Err(_) => continue,
            };
            match status {
                Ok(status) => self.set_status(*ifindex, status),
                Err(error) if exists(*ifindex) => {
                    self.health.degraded(&what(&port), &error.to_string());
                }
                Err(_) => {}
            }
        }
        lost
    }

    /// Pins maps again whose pins someone has removed.
    pub(crate) fn repair_pins(&self) {
        match self.kernel.pin_again() {
            Ok(gone) if gone.is_empty() => self.health.recovered("pins"),
            Ok(gone) => {
                let why = format!("someone has removed {}; pinned again", gone.join(", "));
                self.health.degraded("pins", &why);
            }
            Err(error) => self.health.degraded("pins", &error.to_string()),
        }
    }
}
