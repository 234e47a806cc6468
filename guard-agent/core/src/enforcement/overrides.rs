//! The ports that have a mode of their own, for a while or until it is changed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::Mode;

/// The mode of a port, whatever its bridge's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// What becomes of its frames.
    pub mode: Mode,
    /// Until then; `None`: until it is changed.
    pub until: Option<Timestamp>,
}

/// The overrides, by bridge and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<(Arc<str>, Arc<str>), Override>);

impl Overrides {
    /// Gives a port a mode of its own, or its bridge's.
    pub fn set(&mut self, bridge: &Arc<str>, port: &Arc<str>, mode: Option<Override>) {
        let key = (bridge.clone(), port.clone());
        match mode {
            Some(mode) => self.0.insert(key, mode),
            None => self.0.remove(&key),
        };
    }

    /// The mode of a port that has one of its own.
    pub fn get(&self, bridge: &Arc<str>, port: &Arc<str>) -> Option<Mode> {
        self.0.get(&(bridge.clone(), port.clone())).map(|entry| entry.mode)
    }

    /// Those on a bridge.
    pub fn on(&self, bridge: &str) -> impl Iterator<Item = (&Arc<str>, Override)> {
        let own = self.0.iter().filter(move |((on, _), _)| **on == *bridge);
        own.map(|((_, port), entry)| (port, *entry))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&(Arc<str>, Arc<str>), Override)> {
        self.0.iter().map(|(place, entry)| (place, *entry))
    }

    /// Removes those whose time is over, and returns where they were.
    pub fn expire(&mut self, now: Timestamp) -> Vec<(Arc<str>, Arc<str>)> {
        let is_over = |entry: &Override| entry.until.is_some_and(|until| until <= now);
        self.0.extract_if(.., |_, entry| is_over(entry)).map(|(place, _)| place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_override_lasts_until_its_time_is_over_or_it_is_changed() {
        let (bridge, short, long) = (Arc::from("rt0"), Arc::from("a"), Arc::from("b"));
        let mut overrides = Overrides::default();
        let entry = |mode, until| Some(Override { mode, until });
        overrides.set(&bridge, &short, entry(Mode::Enforce, Some(second(10))));
        overrides.set(&bridge, &long, entry(Mode::Observe, None));
        assert_eq!(overrides.expire(second(9)), []);
        assert_eq!(overrides.get(&bridge, &short), Some(Mode::Enforce));
        assert_eq!(overrides.expire(second(10)), [(bridge.clone(), short.clone())]);
        assert_eq!(overrides.get(&bridge, &short), None);
        assert_eq!(overrides.on("rt0").count(), 1);
        assert_eq!(overrides.on("rt1").count(), 0);
        overrides.set(&bridge, &long, None);
        assert_eq!(overrides, Overrides::default());
    }
}
