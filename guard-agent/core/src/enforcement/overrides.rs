//! The ports that have a mode of their own, for a while or until it is changed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::Mode;

/// The mode of a port, whatever its bridge's is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The port's bridge: on another its mode is that one's.
    pub bridge: Arc<str>,
    /// The port's name when it was given.
    pub port: Arc<str>,
    /// What becomes of its frames.
    pub mode: Mode,
    /// Until then; `None`: until it is changed.
    pub until: Option<Timestamp>,
}

/// The overrides by ifindex. They are of a link, not of a name: one ends with its port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<u32, Override>);

impl Overrides {
    /// Gives a port a mode of its own, or its bridge's.
    pub fn set(&mut self, ifindex: u32, mode: Option<Override>) {
        match mode {
            Some(mode) => self.0.insert(ifindex, mode),
            None => self.0.remove(&ifindex),
        };
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Override)> {
        self.0.iter().map(|(ifindex, entry)| (*ifindex, entry))
    }

    /// Removes those whose time or whose port is over, and returns them.
    pub fn expire(
        &mut self,
        now: Timestamp,
        has_ended: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Override)> {
        let is_over = |ifindex: &u32, entry: &mut Override| {
            has_ended(*ifindex) || entry.until.is_some_and(|until| until <= now)
        };
        self.0.extract_if(.., is_over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_override_lasts_until_its_time_or_its_port_is_over_or_it_is_changed() {
        let mut overrides = Overrides::default();
        let entry = |mode, until| Override { bridge: "rt0".into(), port: "a".into(), mode, until };
        let short = entry(Mode::Enforce, Some(second(10)));
        overrides.set(7, Some(short.clone()));
        overrides.set(8, Some(entry(Mode::Observe, None)));
        overrides.set(9, Some(entry(Mode::Observe, None)));
        assert_eq!(overrides.expire(second(9), |_| false), []);
        assert_eq!(overrides.expire(second(10), |_| false), [(7, short)]);
        assert_eq!(overrides.expire(second(11), |ifindex| ifindex == 8).len(), 1);
        assert_eq!(overrides.iter().map(|(ifindex, _)| ifindex).collect::<Vec<_>>(), [9]);
        overrides.set(9, None);
        assert_eq!(overrides, Overrides::default());
    }
}
