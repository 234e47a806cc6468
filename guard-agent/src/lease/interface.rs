//! Interface names: a prefix and a number, given to one at a time.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{
    Swap, Write,
    command::{Reason, Refusal, Reply},
    step::Step,
};

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
}

/// All names that are reserved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Interfaces {
    by_name: BTreeMap<Arc<str>, Arc<InterfaceName>>,
    by_asker: BTreeMap<(Arc<str>, Arc<str>), Arc<InterfaceName>>,
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
        }
        if let Some(new) = new {
            self.by_name.insert(Arc::clone(&new.name), Arc::clone(new));
            self.by_asker.insert(asker(new), Arc::clone(new));
        }
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

impl Step<'_> {
    /// The lowest `prefixN` that nobody has, the kernel included; the same one for whoever has one
    /// already.
    pub(super) fn reserve_interface(
        &mut self,
        prefix: &Arc<str>,
        id: &Arc<str>,
    ) -> Result<Reply, Refusal> {
        let known = &self.engine.interfaces;
        if let Some(same) = known.by_asker.get(&(Arc::clone(prefix), Arc::clone(id))) {
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
        let names = (0_u64..)
            .map(|n| format!("{prefix}{n}"))
            .take_while(|name| name.len() <= LONGEST)
            .find(|name| {
                !known.by_name.contains_key(name.as_str()) && !self.view.link_exists(name)
            });
        let name = names.ok_or_else(|| {
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
        });
        self.put_interface(None, Some(&reserved));
        Ok(Reply::Interface(reserved))
    }

    /// Once is as good as twice.
    pub(super) fn release_interface(&mut self, name: &Arc<str>) -> Reply {
        let Some(known) = self.engine.interfaces.by_name.get(name).cloned() else {
            return Reply::NotFound;
        };
        self.put_interface(Some(&known), None);
        Reply::Interface(known)
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

/// Stricter than the kernel (`dev_valid_name` in net/core/dev.c): names end up in scripts.
fn can_begin_a_name(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    prefix.len() < LONGEST
        && prefix.starts_with(|first: char| first.is_ascii_alphabetic())
        && prefix.bytes().all(plain)
}
