//! The rule books: what code and tests cite of them is there.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::{read, sources};

/// The names of the rows of `claims.md`, those that are not carried out yet among them.
fn rows() -> Result<BTreeSet<String>> {
    let book = read("docs/rules/claims.md")?;
    let names = book.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    Ok(names.filter(|name| is_row(name)).map(str::to_owned).collect())
}

/// The numbers of the rules of `leases.md`.
fn rules() -> Result<BTreeSet<String>> {
    let book = read("docs/rules/leases.md")?;
    let names = book.lines().filter_map(|line| line.strip_prefix("### Rule ")?.split(':').next());
    Ok(names.map(str::to_owned).collect())
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A letter and two digits, and perhaps another letter: `A16b`.
fn is_row(word: &str) -> bool {
    let Some(number) = word.strip_prefix(['A', 'D', 'L', 'N']) else { return false };
    is_number(number.strip_suffix('b').unwrap_or(number)) && number.len() >= 2
}

/// What is cited of a book: the words behind its name, over the ends of lines, as long as they are of
/// `kind`. "claims.md A31, A33 to A35" cites three rows.
fn cited<'a>(text: &'a str, book: &str, kind: fn(&str) -> bool) -> Vec<&'a str> {
    let mut all = Vec::new();
    for rest in text.split(book).skip(1) {
        for word in rest.split_whitespace() {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            if kind(bare) {
                all.push(bare);
            } else if !matches!(bare, "" | "to" | "and" | "or" | "rule" | "rules") {
                break;
            }
            if word.ends_with([')', '.', ':', ';']) {
                break;
            }
        }
    }
    all
}

#[test]
fn what_is_cited_of_the_rule_books_is_in_them() -> Result<()> {
    let (rows, rules) = (rows()?, rules()?);
    let mut citations = 0;
    for (path, text) in sources()? {
        for row in cited(&text, "claims.md ", is_row) {
            assert!(rows.contains(row), "{}: claims.md has no row {row}", path.display());
            citations += 1;
        }
        for rule in cited(&text, "leases.md ", is_number) {
            assert!(rules.contains(rule), "{}: leases.md has no rule {rule}", path.display());
            citations += 1;
        }
    }
    assert!(citations > 100, "{citations} citations");
    Ok(())
}

#[test]
fn tests_are_named_for_rules_and_rows_that_exist() -> Result<()> {
    let (rows, rules) = (rows()?, rules()?);
    let mut named = BTreeSet::new();
    for (path, text) in sources()? {
        for name in text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next()) {
            let (first, rest) = name.split_once('_').unwrap_or((name, ""));
            let row = first.to_uppercase();
            let known = match rest.split('_').next() {
                Some(number) if first == "rule" && is_number(number) => {
                    named.insert(number.to_owned());
                    rules.contains(number)
                }
                _ if is_row(&row) => rows.contains(&row),
                _ => true,
            };
            assert!(known, "{}: {name} is named for nothing", path.display());
        }
    }
    let untested: Vec<_> = rules.difference(&named).collect();
    assert!(untested.is_empty(), "no test is named for the rules {untested:?}");
    Ok(())
}

#[test]
fn a_citation_ends_where_its_sentence_goes_on() {
    let text =
        "/// (claims.md A31 to\n/// A34, N12). And A99; claims.md L02: A98, claims.md says A97.";
    assert_eq!(cited(text, "claims.md ", is_row), ["A31", "A34", "N12", "L02"]);
    assert_eq!(cited("leases.md rules 4 and\n//! 5).", "leases.md ", is_number), ["4", "5"]);
}
