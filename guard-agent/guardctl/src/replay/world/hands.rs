//! What comes of a decision in a replay.

use super::*;

impl Hands for World<'_> {
    fn now(&self) -> Moment {
        let at = self.model.now_ns;
        Moment { now: now(at), monotonic: Duration::from_nanos(at) }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<arbiter::Event> {
        match effect {
            Effect::Sighted(sighted) => self.sighted(*sighted),
            Effect::Moved { mild, segment, address, sides } => {
                self.moved(&segment, address, *sides, mild);
            }
            Effect::Folded(segment, address, ifindex) => {
                let at = now(self.model.now_ns);
                self.closed.extend(self.incidents.folded(&segment, address, ifindex, at));
            }
            Effect::Spoke(segment, address, holder) => {
                let at = now(self.model.now_ns);
                self.incidents.holder_spoke(&segment, address, &holder, at);
            }
            Effect::HoldInKernel(key, live) => {
                self.stay(&key);
                self.model.live.insert(key, live);
            }
            Effect::ForgetInKernel(key, ifindex) => {
                if self.model.live.get(&key).is_some_and(|live| live.ifindex == ifindex) {
                    self.stay(&key);
                    self.model.live.remove(&key);
                }
            }
            Effect::HoldInstead(key, ifindex, live) => {
                if self.model.live.get(&key).is_some_and(|live| live.ifindex == ifindex) {
                    self.stay(&key);
                    self.model.live.insert(key, live);
                }
            }
            Effect::ForgetChallenger(challenger) => self.forget_challenger(&challenger),
            Effect::Recheck(question) => return Some(self.answer(question)),
            Effect::Gone { segment, target, mac, ifindex } => {
                return self.gone(segment, target, (mac, ifindex));
            }
            Effect::HoldMac(AddressKey { bridge, .. }, Mac(mac), ifindex) => {
                let holder = MacHolder { ifindex, flags: 0 };
                self.model.macs.insert(MacKey::new(bridge, 0, mac), holder);
            }
            Effect::ForgetMac(AddressKey { bridge, .. }, Mac(mac), ifindex) => {
                let key = MacKey::new(bridge, 0, mac);
                if self.model.macs.get(&key).is_some_and(|holder| holder.ifindex == ifindex) {
                    self.model.macs.remove(&key);
                }
            }
            // Nobody can be asked, and who was seen is noted frame for frame.
            Effect::Probe { .. }
            | Effect::Claimed(_)
            | Effect::Contested(_)
            | Effect::Withdraw(..)
            | Effect::Listen(..)
            | Effect::ListenToOwner(..)
            | Effect::HoldBack(..)
            | Effect::HostAsks { .. }
            | Effect::ProbeRace(..)
            | Effect::Remark(..) => {}
        }
        None
    }
}

impl World<'_> {
    fn sighted(&mut self, Sighted { mut sighting, counted, .. }: Sighted) {
        if let Some(known) = counted.and_then(|of| self.model.challengers.get(&of)) {
            sighting.challenger.frames = known.frames.max(1);
        }
        if let (Some(holder), Some(address)) = (&mut sighting.holder, sighting.target.address())
            && let (Some(mac), Some(ifindex)) = (holder.mac, holder.ifindex)
            && let Some(span) =
                self.claims.get(&(self.key(&sighting.segment, address), mac, ifindex))
        {
            holder.first_seen = now(span.first_ns).wall;
        }
        // Where the gateway is at home is not known: whoever else claims it is as bad as any.
        let address = sighting.target.address();
        let gateway = address.is_some_and(|at| self.is_reserved(&sighting.segment, at));
        if gateway && sighting.kind == Kind::Duplicate {
            sighting.kind = Kind::Gateway;
        }
        self.incidents.sighted(sighting, now(self.model.now_ns));
    }

    fn forget_challenger(&mut self, challenger: &ChallengerKey) {
        let ChallengerKey { key, mac, ifindex, .. } = *challenger;
        let known = self.model.challengers.remove(challenger);
        let span = self.claims.get_mut(&(key, Mac(mac), ifindex));
        if let (Some(known), Some(span)) = (known, span) {
            span.last_ns = span.last_ns.max(known.seen_ns);
        }
    }

    fn gone(
        &mut self,
        segment: Segment,
        target: Target,
        who: (Option<Mac>, Option<u32>),
    ) -> Option<arbiter::Event> {
        let key = target.address().map(|at| self.key(&segment, at));
        let over = self.incidents.gone(&(segment, target), who, now(self.model.now_ns))?;
        self.closed.push(over.clone());
        let live = key.and_then(|key| self.model.live.get(&key).copied());
        Some(arbiter::Event::Cleared { incident: Box::new(over), live })
    }

    fn moved(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        (from, to): (Option<Claimant>, Claimant),
        mild: bool,
    ) {
        let side = |side: &Claimant| (side.mac, side.ifindex.unwrap_or_default());
        if !from.as_ref().is_some_and(|from| self.is_on_its_way(side(from), side(&to))) {
            let at = now(self.model.now_ns);
            self.incidents.moved(segment, address, (from.as_ref(), &to), mild, at);
        }
    }

    fn answer(&self, question: Question) -> arbiter::Event {
        match question {
            Question::Holder { key, holder, challenger } => {
                let side = |Station { mac, ifindex, .. }: &Station| (Some(*mac), *ifindex);
                let port_works = !self.is_on_its_way(side(&holder), side(&challenger));
                let live: Option<Live> = self.model.live.get(&key).copied();
                arbiter::Event::HolderRead { key, live, port_works }
            }
            Question::Ports { suspect, both: _ } => {
                arbiter::Event::PortsRead { suspect, exist: true }
            }
            // No port is blocked in a capture.
            Question::Forwards(event) => {
                arbiter::Event::PortRead { event, read: arbiter::Read::default() }
            }
        }
    }
}
