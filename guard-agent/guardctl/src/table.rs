//! Tables without borders, as wide as the screen, with notes beneath a row for what would not fit
//! beside it.
//!
//! Names and addresses may be of any length, and no word is folded or cut. Where a screen is too narrow
//! even for a table whose columns have folded, columns become notes.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Width, presets};

use crate::output::{Screen, printable};

/// Columns that fold keep at least this width.
const NARROWEST: u16 = 8;
const INDENT: &str = "  ";
/// How long ids of containers are, and what of them is shown.
const LONG: usize = 64;
const SHORT: usize = 12;

/// A table that is being filled.
pub(crate) struct Table {
    headers: &'static [&'static str],
    yields: &'static [&'static str],
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

/// How a table may be laid out: which of its columns there are, which of them fold, and the blanks
/// between two.
struct Layout<'a> {
    columns: Vec<usize>,
    folds: &'a [&'a str],
    gap: u16,
}

impl Table {
    /// A table whose columns keep the width of their content, except that where the screen is too
    /// narrow those in `yields` give way, the first of them first: they fold between words, and
    /// where that is not enough they become notes. The table's first column must not be one of them.
    pub(crate) fn new(headers: &'static [&'static str], yields: &'static [&'static str]) -> Self {
        Self { headers, yields, rows: Vec::new() }
    }

    /// Adds a row, with the notes that stand beneath it.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>, notes: Vec<String>) {
        self.rows.push((cells.into_iter().collect(), notes));
    }

    /// The text; where there are no rows, `empty` in their stead.
    pub(crate) fn text(self, screen: Screen, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let width = usize::from(screen.width);
        let fits = |(_, lines): &(Vec<usize>, Vec<String>)| {
            lines.iter().all(|line| visible(line) <= width)
        };
        let lines = |layout: Layout<'_>| {
            let lines = self.lines(screen, &layout);
            (layout.columns, lines)
        };
        let (columns, lines) = self
            .layouts()
            .filter(|layout| self.narrowest(layout) <= width)
            .map(lines)
            .find(fits)
            .unwrap_or_else(|| lines(Layout { columns: vec![0], folds: &[], gap: 1 }));
        let mut rows = self.rows.iter();
        let mut text = String::new();
        let mut lines = lines.into_iter().peekable();
        let mut header = true;
        while let Some(line) = lines.next() {
            text.push_str(line.trim_end());
            text.push('\n');
            // The first column never folds, so that a line that begins with a blank goes on.
            let row_ends = lines.peek().is_none_or(|next| !next.starts_with(' '));
            if row_ends && !header {
                let Some((cells, notes)) = rows.next() else { continue };
                for note in self.left_out(cells, &columns).iter().chain(notes) {
                    text.push_str(&folded(note, INDENT, width));
                }
            }
            header = header && !row_ends;
        }
        text
    }

    /// How it may be laid out, the best first.
    fn layouts(&self) -> impl Iterator<Item = Layout<'_>> {
        let all: Vec<usize> = (0..self.headers.len()).collect();
        let wide = Layout { columns: all.clone(), folds: &[], gap: 2 };
        let folded = (0..=self.yields.len()).map({
            let all = all.clone();
            move |n| Layout { columns: all.clone(), folds: &self.yields[..n], gap: 1 }
        });
        // Those that give way, and then the others from the last on.
        let yields = |name: &&str| self.headers.iter().position(|header| header == name);
        let mut gone: Vec<usize> = self.yields.iter().filter_map(yields).collect();
        let others: Vec<usize> = all[1..].iter().copied().rev().collect();
        gone.extend(others.into_iter().filter(|at| !gone.contains(at)).collect::<Vec<_>>());
        let fewer = (1..=gone.len()).map(move |n| {
            let columns = all.iter().copied().filter(|at| !gone[..n].contains(at)).collect();
            Layout { columns, folds: self.yields, gap: 1 }
        });
        std::iter::once(wide).chain(folded).chain(fewer)
    }

    /// How wide it is at least: where a column folds, its longest word stays whole.
    fn narrowest(&self, Layout { columns, folds, gap }: &Layout<'_>) -> usize {
        let gaps = usize::from(*gap) * columns.len().saturating_sub(1);
        let width = |at: &usize| self.width(*at, folds.contains(&self.headers[*at]));
        columns.iter().map(width).sum::<usize>() + gaps
    }

    /// How wide a column is at least.
    fn width(&self, at: usize, folds: bool) -> usize {
        let cells = self.rows.iter().filter_map(|(cells, _)| cells.get(at));
        let texts = cells.map(Cell::content).chain([self.headers[at].to_owned()]);
        let widest = |text: String| match folds {
            true => text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0),
            false => text.chars().count(),
        };
        texts.map(widest).max().unwrap_or(0)
    }

    /// What the columns that are not there say of a row, in one note.
    fn left_out(&self, cells: &[Cell], columns: &[usize]) -> Option<String> {
        let all = self.headers.iter().zip(cells).enumerate();
        let said = all.filter(|(at, _)| !columns.contains(at)).filter_map(|(_, (header, cell))| {
            let content = cell.content();
            (content != "-").then(|| format!("{}: {content}", header.to_lowercase()))
        });
        let said = said.collect::<Vec<_>>().join(", ");
        (!said.is_empty()).then_some(said)
    }

    fn lines(&self, screen: Screen, Layout { columns, folds, gap }: &Layout<'_>) -> Vec<String> {
        let mut table = comfy_table::Table::new();
        let arrangement = match folds {
            [] => ContentArrangement::Disabled,
            _ => ContentArrangement::Dynamic,
        };
        table.load_preset(presets::NOTHING).set_content_arrangement(arrangement);
        let headers: Vec<_> = columns.iter().map(|at| self.headers[*at]).collect();
        table.set_width(screen.width).set_header(headers.iter());
        let cells = |cells: &[Cell]| -> Vec<Cell> {
            columns.iter().filter_map(|at| cells.get(*at).cloned()).collect()
        };
        table.add_rows(self.rows.iter().map(|(row, _)| Row::from(cells(row))));
        if screen.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let last = columns.len().saturating_sub(1);
        for (index, (column, header)) in table.column_iter_mut().zip(&headers).enumerate() {
            let gap = if index == last { 0 } else { *gap };
            column.set_padding((0, gap));
            column.set_constraint(if folds.contains(header) {
                let words = self.width(columns[index], true);
                let least = u16::try_from(words).unwrap_or(u16::MAX).max(NARROWEST);
                ColumnConstraint::LowerBoundary(Width::Fixed(least.saturating_add(gap)))
            } else {
                ColumnConstraint::ContentWidth
            });
        }
        table.lines().collect()
    }
}

/// A cell; a dash where there is nothing.
pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(if text.is_empty() { "-".to_owned() } else { printable(text) })
}

/// An id of 64 hexadecimal digits, as containers have, by its first twelve, which tell it from others;
/// JSON has it whole.
pub(crate) fn short(id: &str) -> &str {
    if id.len() == LONG && is_hexadecimal(id) { &id[..SHORT] } else { id }
}

/// Whether this may be what [`short`] has left of an id, or a little more of it.
pub(crate) fn is_shortened(id: &str) -> bool {
    (SHORT..LONG).contains(&id.len()) && is_hexadecimal(id)
}

fn is_hexadecimal(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A cell for what can always be printed.
pub(crate) fn plain(value: impl ToString) -> Cell {
    Cell::new(value)
}

/// A cell in the colour of good news, of a warning or of bad news, by the word in it.
pub(crate) fn signal(text: &str) -> Cell {
    let colour = match text {
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

/// A note, indented and folded between words. A word that no line has room for is longer than its line:
/// it may be an address or an id, which people copy.
pub(crate) fn folded(note: &str, indent: &str, width: usize) -> String {
    let mut text = String::from(indent);
    let mut column = indent.len();
    for (index, word) in printable(note).split(' ').enumerate() {
        let len = word.chars().count();
        if index != 0 && column + 1 + len <= width {
            text.push(' ');
            column += 1;
        } else if index != 0 {
            go_on(&mut text, indent);
            column = indent.len() + INDENT.len();
        }
        column += len;
        text.push_str(word);
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
            [plain("10.8.64.2"), signal("quarantined"), cell("a-rather-long-name")],
            vec!["live: claimed by ARP".to_owned()],
        );
        table.row([plain("10.8.64.3"), signal("held"), cell("")], vec![]);
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
    fn a_narrow_screen_folds_no_name() {
        assert_eq!(
            table().text(screen(32, false), ""),
            "ADDRESS   STATE\n\
             10.8.64.2 quarantined\n  sandbox: a-rather-long-name\n  live: claimed by ARP\n\
             10.8.64.3 held\n"
        );
    }

    #[test]
    fn a_column_of_words_folds_between_them() {
        let mut table = Table::new(&["WHAT", "DETAIL", "OK"], &["DETAIL"]);
        table.row([plain("store"), plain("3 rows and a-word"), plain("yes")], vec![]);
        assert_eq!(
            table.text(screen(20, false), ""),
            "WHAT  DETAIL     OK\nstore 3 rows and yes\n      a-word\n"
        );
    }

    #[test]
    fn only_long_ids_are_shortened() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(short(&id), "0123456789ab");
        let name = "n".repeat(64);
        for whole in ["c1", &id[1..], &name] {
            assert_eq!(short(whole), whole);
        }
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
        assert_eq!(folded("one a-long-word", INDENT, 10), "  one\n    a-long-word\n");
        assert_eq!(folded("a-long-word", "", 6), "a-long-word\n");
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
