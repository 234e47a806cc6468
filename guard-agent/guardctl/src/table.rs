//! Tables without borders, as wide as the screen, with notes beneath a row for what would not fit
//! beside it.
//!
//! Names and addresses may be of any length. Where a screen is too narrow even for a table whose
//! columns have given way, its last columns become notes.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Width, presets};

use crate::output::{Screen, printable};

/// Columns that wrap keep at least this width.
const NARROWEST: u16 = 8;
const INDENT: &str = "  ";

/// A table that is being filled.
pub struct Table {
    headers: &'static [&'static str],
    wrap: &'static [&'static str],
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

impl Table {
    /// A table whose columns keep the width of their content, except that where the screen is too
    /// narrow those in `wrap` give way, the first of them first. The table's first column must not
    /// be one of them.
    pub fn new(headers: &'static [&'static str], wrap: &'static [&'static str]) -> Self {
        Self { headers, wrap, rows: Vec::new() }
    }

    /// Adds a row, with the notes that stand beneath it.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>, notes: Vec<String>) {
        self.rows.push((cells.into_iter().collect(), notes));
    }

    /// The text; where there are no rows, `empty` in their stead.
    pub fn text(self, screen: Screen, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let width = usize::from(screen.width);
        let all = self.headers.len();
        let fits = |(_, lines): &(usize, Vec<String>)| lines.iter().all(|l| visible(l) <= width);
        let whole = |wrap: &[&str], gap| (all, self.lines(screen, all, wrap, gap));
        let (columns, lines) = std::iter::once(whole(&[], 2))
            .chain((0..=self.wrap.len()).map(|n| whole(&self.wrap[..n], 1)))
            .chain((1..all).rev().map(|n| (n, self.lines(screen, n, self.wrap, 1))))
            .find(fits)
            .unwrap_or_else(|| (1, self.lines(screen, 1, &[], 1)));
        let mut rows = self.rows.iter();
        let mut text = String::new();
        let mut lines = lines.into_iter().peekable();
        let mut header = true;
        while let Some(line) = lines.next() {
            text.push_str(line.trim_end());
            text.push('\n');
            // The first column never wraps, so that a line that begins with a blank goes on.
            let row_ends = lines.peek().is_none_or(|next| !next.starts_with(' '));
            if row_ends && !header {
                let Some((cells, notes)) = rows.next() else { continue };
                for note in self.left_out(cells, columns).iter().chain(notes) {
                    text.push_str(&folded(note, INDENT, width));
                }
            }
            header = header && !row_ends;
        }
        text
    }

    /// What the columns beyond these say of a row, in one note.
    fn left_out(&self, cells: &[Cell], columns: usize) -> Option<String> {
        let said = self.headers.iter().zip(cells).skip(columns).filter_map(|(header, cell)| {
            let content = cell.content();
            (content != "-").then(|| format!("{}: {content}", header.to_lowercase()))
        });
        let said = said.collect::<Vec<_>>().join(", ");
        (!said.is_empty()).then_some(said)
    }

    fn lines(&self, screen: Screen, columns: usize, wrap: &[&str], gap: u16) -> Vec<String> {
        let mut table = comfy_table::Table::new();
        let arrangement = match wrap {
            [] => ContentArrangement::Disabled,
            _ => ContentArrangement::Dynamic,
        };
        table.load_preset(presets::NOTHING).set_content_arrangement(arrangement);
        let headers = &self.headers[..columns];
        table.set_width(screen.width).set_header(headers);
        let row = |(cells, _): &(Vec<Cell>, _)| Row::from(cells.iter().take(columns).cloned());
        table.add_rows(self.rows.iter().map(row));
        if screen.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let last = columns.saturating_sub(1);
        for (index, (column, header)) in table.column_iter_mut().zip(headers).enumerate() {
            column.set_padding((0, if index == last { 0 } else { gap }));
            column.set_constraint(if wrap.contains(header) {
                ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST))
            } else {
                ColumnConstraint::ContentWidth
            });
        }
        table.lines().collect()
    }
}

/// A cell; a dash where there is nothing.
pub fn cell(text: Option<&str>) -> Cell {
    Cell::new(text.map_or_else(|| "-".to_owned(), printable))
}

/// A cell for what can always be printed.
pub fn plain(value: impl ToString) -> Cell {
    Cell::new(value)
}

/// A cell in the colour of good news, of a warning or of bad news, by the word in it.
pub fn signal(text: Option<&str>) -> Cell {
    let colour = match text.unwrap_or_default() {
        "active" | "yes" | "tcx" | "clsact" | "ready" => Color::Green,
        "held" | "releasing" | "warning" => Color::Yellow,
        "quarantined" | "critical" | "no" => Color::Red,
        _ => return cell(text),
    };
    cell(text).fg(colour)
}

/// How many columns a line takes, without its colours.
fn visible(line: &str) -> usize {
    let mut escape = false;
    line.trim_end()
        .chars()
        .filter(|c| {
            let was = escape;
            escape = *c == '\x1b' || (escape && *c != 'm');
            !was && !escape
        })
        .count()
}

/// A note, indented and folded between words; a word that no line has room for, within itself.
pub fn folded(note: &str, indent: &str, width: usize) -> String {
    let mut text = String::from(indent);
    let mut column = indent.len();
    for (index, word) in printable(note).split(' ').enumerate() {
        let mut rest: Vec<char> = word.chars().collect();
        let begins = index == 0;
        if !begins && column + 1 + rest.len() <= width {
            text.push(' ');
            column += 1;
        } else if !begins {
            go_on(&mut text, indent);
            column = indent.len() + INDENT.len();
        }
        while !rest.is_empty() && column + rest.len() > width {
            text.extend(rest.drain(..width.saturating_sub(column).clamp(1, rest.len())));
            go_on(&mut text, indent);
            column = indent.len() + INDENT.len();
        }
        column += rest.len();
        text.extend(rest);
    }
    text.push('\n');
    text
}

fn go_on(text: &mut String, indent: &str) {
    text.push('\n');
    text.push_str(indent);
    text.push_str(INDENT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: u16, colour: bool) -> Screen {
        Screen { width, colour, now: jiff::Timestamp::UNIX_EPOCH }
    }

    fn table() -> Table {
        let mut table = Table::new(&["ADDRESS", "STATE", "SANDBOX"], &["SANDBOX"]);
        table.row(
            [plain("10.8.64.2"), signal(Some("quarantined")), cell(Some("a-rather-long-name"))],
            vec!["live: claimed by ARP".to_owned()],
        );
        table.row([plain("10.8.64.3"), signal(Some("held")), cell(None)], vec![]);
        table
    }

    #[test]
    fn notes_stand_beneath_their_row() {
        assert_eq!(
            table().text(screen(80, false), ""),
            "ADDRESS    STATE        SANDBOX\n\
             10.8.64.2  quarantined  a-rather-long-name\n  live: claimed by ARP\n\
             10.8.64.3  held         -\n"
        );
    }

    #[test]
    fn a_narrow_screen_wraps_names_and_keeps_the_notes() {
        assert_eq!(
            table().text(screen(32, false), ""),
            "ADDRESS   STATE       SANDBOX\n\
             10.8.64.2 quarantined a-rather-l\n                      ong-name\n  \
             live: claimed by ARP\n\
             10.8.64.3 held        -\n"
        );
    }

    #[test]
    fn colour_changes_nothing_else() {
        let coloured = table().text(screen(80, true), "");
        assert!(coloured.contains("\x1b["), "{coloured:?}");
        let width = coloured.lines().map(visible).max();
        assert_eq!(width, table().text(screen(80, false), "").lines().map(visible).max());
    }

    #[test]
    fn long_notes_fold_between_words() {
        assert_eq!(folded("one two three", INDENT, 10), "  one two\n    three\n");
        assert_eq!(folded("one a-long-word", INDENT, 10), "  one\n    a-long\n    -word\n");
        assert_eq!(folded("a-long-word", "", 6), "a-long\n  -wor\n  d\n");
    }

    #[test]
    fn columns_that_have_no_room_become_notes() {
        assert_eq!(
            table().text(screen(22, false), ""),
            "ADDRESS   STATE\n\
             10.8.64.2 quarantined\n  sandbox:\n    a-rather-long-name\n  live: claimed by ARP\n\
             10.8.64.3 held\n"
        );
    }
}
