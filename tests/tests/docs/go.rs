//! The Go in the guide, which a scenario runs.

use anyhow::Result;

use crate::{blocks, read};

#[test]
fn the_go_in_the_guide_is_that_of_the_example() -> Result<()> {
    let example = read("docs/examples/controller.go")?;
    let blocks = blocks(&read("docs/guide.md")?).into_iter().filter(|(info, _)| info == "go");
    let mut functions = 0;
    for (_, block) in blocks {
        for function in block.trim_end().split("\n\n") {
            functions += 1;
            assert!(example.contains(function), "not in docs/examples/controller.go:\n{function}");
        }
    }
    assert!(functions > 1, "{functions} functions");
    Ok(())
}
