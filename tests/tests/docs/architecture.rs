//! The architecture's walks name functions that exist.

use anyhow::{Context, Result};

use crate::{read, sources};

#[test]
fn each_function_on_a_walk_exists() -> Result<()> {
    let document = read("docs/architecture.md")?;
    let (_, walks) = document.split_once("## One frame").context("the first walk")?;
    let (walks, _) = walks.split_once("## Glossary").context("what is behind the walks")?;
    let sources = sources()?;
    let mut functions = 0;
    for name in walks.split('`').filter_map(|word| word.strip_suffix("()")) {
        let name = name.rsplit("::").next().unwrap_or(name);
        functions += 1;
        let heads = [format!("fn {name}("), format!("fn {name}<")];
        let exists = sources.iter().any(|(_, text)| heads.iter().any(|head| text.contains(head)));
        assert!(exists, "no function is called {name}");
    }
    assert!(functions > 20, "{functions} functions");
    Ok(())
}
