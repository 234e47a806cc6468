//! Text from outside, shown so that it stays within its line and its place: guests and callers choose
//! names, and a control character in one could make a line of its own, or have a terminal show another.

use std::fmt;

/// Writes what cannot be seen of a text as escapes, as in a Rust string.
pub struct Escaped<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut from = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| is_hidden(*c)) {
            self.0.write_str(&text[from..at])?;
            write!(self.0, "{}", c.escape_default())?;
            from = at + c.len_utf8();
        }
        self.0.write_str(&text[from..])
    }
}

/// A text with escapes for what cannot be seen of it.
pub fn escaped(text: &str) -> String {
    let mut out = Escaped(String::with_capacity(text.len()));
    // Writing to a string does not fail.
    let _ = fmt::Write::write_str(&mut out, text);
    out.0
}

/// Control characters, and those that break a line, turn its direction or cannot be seen (Unicode's
/// categories Cc, Cf, Zl and Zp, as far as terminals follow them).
pub fn is_hidden(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}');
    hidden || c.is_control()
}

/// A field of a line, `name=value`, so that it is one: quoted where it could be taken for several.
pub fn value(text: &str) -> String {
    if is_one(text) { escaped(text) } else { escaped(&format!("{text:?}")) }
}

/// Whether all that could begin another value is in a string that has an end, and begins where one does.
fn is_one(text: &str) -> bool {
    let (mut rest, mut before) = (text.chars(), ' ');
    while let Some(c) = rest.next() {
        if c == '=' || (c == '"' && !" ,:([{<".contains(before)) {
            return false;
        }
        if c == '"' {
            loop {
                match rest.next() {
                    Some('\\') => drop(rest.next()),
                    Some('"') => break,
                    Some(_) => {}
                    None => return false,
                }
            }
        }
        before = c;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped_and_nothing_else() {
        let shown = "veth0 é 漢 \\n";
        assert_eq!(escaped(shown), shown);
        assert_eq!(escaped("a\nb\u{1b}[2J\u{202e}c\u{9b}"), "a\\nb\\u{1b}[2J\\u{202e}c\\u{9b}");
    }

    #[test]
    fn a_value_is_one_whatever_is_in_it() {
        let one = [
            "veth0",
            "no pool \"a\" has it",
            "[\"a=b\", \"c\"]",
            "\"a\\\" uid=0\"",
            "Some(\"a=b\")",
        ];
        for one in one {
            assert_eq!(value(one), one);
        }
        for (forged, shown) in [
            ("a uid=0", "\"a uid=0\""),
            ("a\" uid=0 \"", "\"a\\\" uid=0 \\\"\""),
            ("\"a", "\"\\\"a\""),
            ("a\nuid=0", "\"a\\nuid=0\""),
            ("\"a\\", "\"\\\"a\\\\\""),
        ] {
            assert_eq!(value(forged), shown);
        }
    }
}
