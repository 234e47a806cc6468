//! Where in the file something stands, so that what is wrong with it can be found.

use toml::de::{DeTable, DeValue};

use super::CheckError;

/// What is wrong, and the path to it: keys and positions, such as `pool.1.vlan`.
#[derive(Debug)]
pub(super) struct Fault {
    pub place: String,
    pub error: CheckError,
}

/// Says where an error is.
pub(super) fn at<E: Into<CheckError>>(place: impl Into<String>) -> impl FnOnce(E) -> Fault {
    let place = place.into();
    move |error| Fault { place, error: error.into() }
}

/// The line on which a place of a file begins, or the nearest thing around it: a setting that is not
/// given stands nowhere. `None` where there is not even a section of it.
pub(super) fn line(text: &str, place: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut steps = place.split('.');
    let mut found = root.get_ref().get(steps.next()?)?;
    for step in steps {
        let inner = match found.get_ref() {
            DeValue::Table(table) => table.get(step),
            DeValue::Array(array) => step.parse().ok().and_then(|index: usize| array.get(index)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        found = inner;
    }
    let before = text.get(..found.span().start)?;
    Some(before.matches('\n').count() + 1)
}
