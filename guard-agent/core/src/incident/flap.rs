//! Addresses that flap between two stations (claims.md A08, A35): each move may have been a rightful
//! one, and still both have the address.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    num::NonZeroU32,
    time::Duration,
};

use super::Claimant;
use crate::segment::Segment;

/// Holders of an address that are remembered.
const HOLDERS: usize = 4;

/// The turns of every address that had more than one holder of late.
#[derive(Debug)]
pub struct Flaps {
    window: Duration,
    count: NonZeroU32,
    turns: HashMap<(Segment, IpAddr), Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// The holders, the present one last.
    holders: VecDeque<Claimant>,
    /// When the address went back to one who had had it.
    returns: VecDeque<Duration>,
}

impl Flaps {
    /// An address that goes back within `window` has flapped; `count` flaps within it are an
    /// incident.
    pub fn new(window: Duration, count: NonZeroU32) -> Self {
        Self { window, count, turns: HashMap::new() }
    }

    /// Within which an address that goes back has flapped.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Someone has an address, as of [`Claimant::last`]. True if it went back to them.
    pub(super) fn turn(&mut self, key: &(Segment, IpAddr), to: &Claimant) -> bool {
        let turns = self.turns.entry(key.clone()).or_default();
        match turns.holders.back_mut() {
            // What is read once more from the maps is not a new turn.
            Some(holder) if to.last <= holder.last => return false,
            Some(holder) if holder.is(to) => {
                *holder = to.clone();
                return false;
            }
            _ => {}
        }
        let earlier = turns.holders.iter().position(|holder| holder.is(to));
        let earlier = earlier.and_then(|at| turns.holders.remove(at));
        turns.holders.push_back(to.clone());
        if turns.holders.len() > HOLDERS {
            turns.holders.pop_front();
        }
        let back = earlier.is_some_and(|had| to.last.saturating_sub(had.last) <= self.window);
        if back {
            turns.returns.push_back(to.last);
        }
        back
    }

    /// The one who had an address before `to`, where the turns have it as nobody's yet.
    pub(super) fn begin(&mut self, key: &(Segment, IpAddr), holder: &Claimant, to: &Claimant) {
        let turns = self.turns.entry(key.clone()).or_default();
        if turns.holders.is_empty() {
            // An owner that is known by its binding was not seen at all.
            let before = to.last.saturating_sub(Duration::from_nanos(1));
            let holder = Claimant { last: holder.last.min(before), ..holder.clone() };
            turns.holders.push_back(holder);
        }
    }

    /// The flaps and the holders of an address, if there were enough within the window.
    pub(super) fn found(&self, key: &(Segment, IpAddr)) -> Option<(u32, Vec<Claimant>)> {
        let turns = self.turns.get(key)?;
        let last = turns.holders.back()?.last;
        let recent = |at: &&Duration| last.saturating_sub(**at) <= self.window;
        let flaps = u32::try_from(turns.returns.iter().filter(recent).count()).ok()?;
        (flaps >= self.count.get()).then(|| (flaps, turns.holders.iter().cloned().collect()))
    }

    /// Forgets the addresses that nobody took over for longer than a window.
    pub(super) fn forget_old(&mut self, now: Duration) {
        let window = self.window;
        self.turns.retain(|_, turns| {
            turns.returns.retain(|at| now.saturating_sub(*at) <= window);
            let last = turns.holders.back().map_or(Duration::ZERO, |holder| holder.last);
            now.saturating_sub(last) <= window
        });
    }
}
