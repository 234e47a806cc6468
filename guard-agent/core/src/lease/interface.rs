//! Interface names: a prefix and a number, given to one at a time.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use jiff::Timestamp;

use super::{
    Swap, Write,
    command::{Reason, Refusal, Reply},
    ranges::Ranges,
    transaction::Transaction,
};
use crate::bounds;

/// How long a name may be in the kernel: `IFNAMSIZ` less the final zero byte.
const LONGEST: usize = 15;

/// A name that is reserved for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName {
    /// The name.
    pub name: Arc<str>,
    /// What it was asked for by.
    pub prefix: Arc<str>,
    /// Who asked for it; it has one name of each prefix.
    pub id: Arc<str>,
    /// Since when.
    pub created_at: Timestamp,
    /// The user on whose behalf it was reserved, where that is known.
    pub maker: Option<u32>,
}

/// All names that are reserved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Interfaces {
    by_name: BTreeMap<Arc<str>, Arc<InterfaceName>>,
    by_asker: BTreeMap<(Arc<str>, Arc<str>), Arc<InterfaceName>>,
    /// The numbers that are taken beneath a prefix, by whatever prefix they were asked for: `veth12`
    /// takes 12 of `veth` and 2 of `veth1`. So the lowest free one is found without a walk.
    taken: BTreeMap<Arc<str>, Ranges>,
    /// How many are reserved by a prefix.
    count: BTreeMap<Arc<str>, usize>,
    /// How many a user has reserved.
    of_maker: BTreeMap<Option<u32>, usize>,
}

impl Interfaces {
    pub(super) fn set(
        &mut self,
        old: Option<&Arc<InterfaceName>>,
        new: Option<&Arc<InterfaceName>>,
    ) {
        let asker = |name: &InterfaceName| (Arc::clone(&name.prefix), Arc::clone(&name.id));
        if let Some(old) = old {
            self.by_name.remove(&old.name);
            self.by_asker.remove(&asker(old));
            one_less(&mut self.count, &old.prefix);
            one_less(&mut self.of_maker, &old.maker);
            for (prefix, number) in readings(&old.name) {
                if let Some(taken) = self.taken.get_mut(prefix) {
                    taken.remove(number, number);
                    if taken.len() == 0 {
                        self.taken.remove(prefix);
                    }
                }
            }
        }
        if let Some(new) = new {
            self.by_name.insert(Arc::clone(&new.name), Arc::clone(new));
            self.by_asker.insert(asker(new), Arc::clone(new));
            *self.count.entry(Arc::clone(&new.prefix)).or_default() += 1;
            *self.of_maker.entry(new.maker).or_default() += 1;
            for (prefix, number) in readings(&new.name) {
                if let Some(taken) = self.taken.get_mut(prefix) {
                    taken.insert(number, number);
                } else {
                    let mut taken = Ranges::default();
                    taken.insert(number, number);
                    self.taken.insert(Arc::from(prefix), taken);
                }
            }
        }
    }

    /// The lowest `prefixN` that is not reserved and that the kernel does not have, which is asked
    /// for each candidate.
    fn lowest(&self, prefix: &str, mut in_kernel: impl FnMut(&str) -> bool) -> Option<String> {
        let taken = self.taken.get(prefix);
        let mut from = 0;
        loop {
            let number = taken.map_or(from, |taken| taken.first_absent_from(from));
            let name = format!("{prefix}{number}");
            if name.len() > LONGEST {
                return None;
            }
            if !in_kernel(&name) {
                return Some(name);
            }
            from = number + 1;
        }
    }

    /// Those after a name, in their order.
    pub(super) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<InterfaceName>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name.range::<str, _>((from, Bound::Unbounded)).map(|(_, name)| name)
    }

    /// By name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<InterfaceName>> {
        self.by_name.values()
    }

    /// What contradicts itself; empty is good.
    pub(super) fn check(&self) -> Option<String> {
        let mut anew = Self::default();
        for name in self.iter() {
            anew.set(None, Some(name));
        }
        (anew != *self).then(|| "the index of interface names".to_owned())
    }
}

impl Transaction<'_> {
    /// The lowest `prefixN` that nobody has, the kernel included; the same one for whoever has one
    /// already.
    pub(super) fn reserve_interface(
        &mut self,
        prefix: &Arc<str>,
        id: &Arc<str>,
    ) -> Result<Reply, Refusal> {
        let known = &self.engine.interfaces;
        if let Some(same) = known.by_asker.get(&(Arc::clone(prefix), Arc::clone(id))) {
            self.caller.check(same.act())?;
            return Ok(Reply::Interface(Arc::clone(same)));
        }
        if !can_begin_a_name(prefix) {
            return Err(Refusal::new(
                Reason::NameMalformed,
                format!(
                    "{prefix:?} is no prefix of an interface name: 1 to {} ASCII letters, digits, \
                     '-', '_' and '.', a letter first",
                    LONGEST - 1
                ),
            ));
        }
        let count = known.count.get(prefix).copied().unwrap_or_default();
        bounds::INTERFACES
            .check(format_args!("prefix {prefix:?}"), count + 1)
            .map_err(|many| Refusal::new(Reason::NameExhausted, many.to_string()))?;
        let maker = self.caller.maker();
        let of_one = known.of_maker.get(&maker).copied().unwrap_or_default();
        bounds::INTERFACES_OF_ONE
            .check(maker.map_or("the agent".to_owned(), |uid| format!("uid {uid}")), of_one + 1)
            .map_err(|many| Refusal::new(Reason::NameExhausted, many.to_string()))?;
        let name = known.lowest(prefix, |name| self.view.link_exists(name)).ok_or_else(|| {
            Refusal::new(
                Reason::NameExhausted,
                format!("all names {prefix:?} and a number of at most {LONGEST} bytes are taken"),
            )
        })?;
        let reserved = Arc::new(InterfaceName {
            name: Arc::from(name),
            prefix: Arc::clone(prefix),
            id: Arc::clone(id),
            created_at: self.now.wall,
            maker,
        });
        self.put_interface(None, Some(&reserved));
        Ok(Reply::Interface(reserved))
    }

    /// Idempotent.
    pub(super) fn release_interface(&mut self, name: &Arc<str>) -> Result<Reply, Refusal> {
        let Some(known) = self.engine.interfaces.by_name.get(name).cloned() else {
            return Ok(Reply::NotFound);
        };
        self.caller.check(known.act())?;
        self.put_interface(Some(&known), None);
        Ok(Reply::Interface(known))
    }

    fn put_interface(
        &mut self,
        old: Option<&Arc<InterfaceName>>,
        new: Option<&Arc<InterfaceName>>,
    ) {
        self.engine.interfaces.set(old, new);
        self.changes.push(Write::Interface(Swap { old: old.cloned(), new: new.cloned() }));
    }
}

/// Counts one less, and keeps nothing where there is none left.
fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Stricter than the kernel (`dev_valid_name` in net/core/dev.c): names end up in scripts.
fn can_begin_a_name(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    prefix.len() < LONGEST
        && prefix.starts_with(|first: char| first.is_ascii_alphabetic())
        && prefix.bytes().all(plain)
}

/// Every way to read a name as a prefix and a number, as this module writes numbers.
fn readings(name: &str) -> impl Iterator<Item = (&str, u128)> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    (name.len() - digits..name.len()).filter_map(|at| {
        let (prefix, number) = name.split_at(at);
        let written = number == "0" || !number.starts_with('0');
        number.parse().ok().filter(|_| written).map(|number| (prefix, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(prefix: &str, numbers: std::ops::Range<u32>) -> Interfaces {
        let mut interfaces = Interfaces::default();
        for number in numbers {
            let name = Arc::new(InterfaceName {
                name: Arc::from(format!("{prefix}{number}")),
                prefix: Arc::from(prefix),
                id: Arc::from(format!("id-{number}")),
                created_at: Timestamp::UNIX_EPOCH,
                maker: None,
            });
            interfaces.set(None, Some(&name));
        }
        interfaces
    }

    #[test]
    fn the_lowest_name_is_found_in_as_many_steps_whatever_is_taken() {
        for count in [0, 1, 800, 8000] {
            let interfaces = reserved("veth", 0..count);
            let mut tried = Vec::new();
            let lowest = interfaces.lowest("veth", |name| {
                tried.push(name.to_owned());
                false
            });
            assert_eq!(lowest, Some(format!("veth{count}")));
            assert_eq!(tried.len(), 1, "{count} names are reserved: {tried:?}");
        }
    }

    #[test]
    fn a_user_has_so_many_names_whatever_they_begin_with() {
        let mut interfaces = reserved("veth", 0..8);
        assert_eq!(interfaces.of_maker, BTreeMap::from([(None, 8)]));
        let taken = Arc::clone(&interfaces.by_name["veth7"]);
        let given = Arc::new(InterfaceName { maker: Some(7), ..(*taken).clone() });
        interfaces.set(Some(&taken), Some(&given));
        assert_eq!(interfaces.of_maker, BTreeMap::from([(None, 7), (Some(7), 1)]));
        interfaces.set(Some(&given), None);
        assert_eq!(interfaces.of_maker, BTreeMap::from([(None, 7)]));
        assert_eq!(interfaces.check(), None);
    }

    #[test]
    fn a_freed_name_is_the_lowest_again_under_every_prefix_that_reads_it() {
        let mut interfaces = reserved("v", 0..120);
        assert_eq!(interfaces.lowest("v1", |_| false).as_deref(), Some("v120"));
        let freed = Arc::clone(&interfaces.by_name["v11"]);
        interfaces.set(Some(&freed), None);
        assert_eq!(interfaces.lowest("v", |_| false).as_deref(), Some("v11"));
        assert_eq!(interfaces.lowest("v1", |_| false).as_deref(), Some("v11"));
        assert_eq!(interfaces.check(), None);
    }

    #[test]
    fn a_name_is_read_in_each_way_that_it_could_be_asked_for() {
        let read = |name| readings(name).collect::<Vec<_>>();
        assert_eq!(read("veth120"), [("veth", 120), ("veth1", 20), ("veth12", 0)]);
        assert_eq!(read("v07"), [("v0", 7)]);
        assert_eq!(read("br-a"), []);
    }
}
