//! Feeds libFuzzer's files to the agent's configuration: nothing panics, what is wrong has a line, and
//! what is right can be changed to and from the defaults' examples.

#![no_main]

use std::{path::Path, sync::LazyLock};

use guard_agent::config::{Config, commented_defaults};
use libfuzzer_sys::fuzz_target;

/// A configuration with every section in it.
static EXAMPLES: LazyLock<Config> = LazyLock::new(|| {
    let text = commented_defaults();
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<_> = text.lines().map(setting).collect();
    Config::parse(Path::new("examples"), &text.join("\n")).expect("the examples are right")
});

fuzz_target!(|text: &str| {
    match Config::parse(Path::new("fuzz"), text) {
        Ok(config) => {
            let (same, changes) = config.changed_to(config.clone());
            assert!(changes.is_empty() && same.pools == config.pools);
            let (changed, _) = EXAMPLES.changed_to(config.clone());
            assert_eq!(changed.access, config.access);
            let _ = config.changed_to(EXAMPLES.clone());
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("line ") || error.contains("there is no [[bridge]]"), "{error}");
        }
    }
});
