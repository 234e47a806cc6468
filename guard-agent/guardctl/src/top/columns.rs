//! A table that is as wide as what is in it, where the screen is.

use ratatui::{
    layout::Constraint,
    style::{Modifier, Style},
    widgets::{Row, Table},
};

/// Where the first column is a name that may be cut, it keeps at least this much.
const NAME: usize = 12;

/// Rows, each with its style.
pub(super) struct Columns {
    pub headers: &'static [&'static str],
    /// The columns that leave the table where the screen is too narrow, the first of them first.
    pub yields: &'static [&'static str],
    /// The first column is a name that may be cut; all others keep all that is in them.
    pub cuts_first: bool,
    pub rows: Vec<(Vec<String>, Style)>,
}

impl Columns {
    /// The table for a screen of this width.
    pub(super) fn fitted(self, width: u16) -> Table<'static> {
        let Self { headers, yields, cuts_first, rows } = self;
        let widths: Vec<usize> = (0..headers.len())
            .map(|at| {
                let cells = rows.iter().filter_map(|(cells, _)| cells.get(at));
                let texts = cells.map(String::as_str).chain([headers[at]]);
                texts.map(|text| text.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let least = |at: usize| match at {
            0 if cuts_first => widths[0].min(NAME),
            at => widths[at],
        };
        let mut kept: Vec<usize> = (0..headers.len()).collect();
        for name in yields {
            let needed: usize = kept.iter().map(|at| least(*at) + 1).sum();
            if needed <= usize::from(width) + 1 {
                break;
            }
            kept.retain(|at| headers[*at] != *name);
        }
        let of_others: usize = kept.iter().skip(1).map(|at| widths[*at] + 1).sum();
        let constraint = |at: &usize| {
            let width = match *at {
                0 if cuts_first => widths[0].min(usize::from(width).saturating_sub(of_others)),
                at => widths[at],
            };
            Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
        };
        let constraints: Vec<_> = kept.iter().map(constraint).collect();
        let row = |(cells, style): (Vec<String>, Style)| {
            Row::new(kept.iter().filter_map(|at| cells.get(*at).cloned()).collect::<Vec<_>>())
                .style(style)
        };
        let header = Row::new(kept.iter().map(|at| headers[*at])).style(Modifier::BOLD);
        let rows: Vec<_> = rows.into_iter().map(row).collect();
        Table::new(rows, constraints).header(header)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    /// What stands on a screen of this width.
    fn shown(width: u16, cuts_first: bool) -> Vec<String> {
        let row = |name: &str, prefix: &str, size: &str, bar: &str| {
            let cells = [name, "br0.4094", prefix, size, size, bar];
            (cells.map(str::to_owned).to_vec(), Style::new())
        };
        let table = Columns {
            headers: &["POOL", "BRIDGE", "PREFIX", "FREE", "OF", "USED"],
            yields: &["BRIDGE", "USED"],
            cuts_first,
            rows: vec![
                row("sandboxes", "10.8.64.0/24", "190", "[###       ] 25%"),
                row(
                    "sandboxes-of-somebody-else",
                    "2001:db8:aaaa:bbbb::/64",
                    "2^64",
                    "[          ] 0%",
                ),
            ],
        };
        let mut terminal = Terminal::new(TestBackend::new(width, 3)).unwrap();
        terminal.draw(|frame| frame.render_widget(table.fitted(width), frame.area())).unwrap();
        let screen = terminal.backend().to_string();
        screen.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
    }

    #[test]
    fn columns_leave_before_any_is_cut() {
        assert_eq!(
            shown(90, false),
            [
                "POOL                       BRIDGE   PREFIX                  FREE OF   USED",
                "sandboxes                  br0.4094 10.8.64.0/24            190  190  [###       ] 25%",
                "sandboxes-of-somebody-else br0.4094 2001:db8:aaaa:bbbb::/64 2^64 2^64 [          ] 0%",
            ]
        );
        assert_eq!(
            shown(80, false),
            [
                "POOL                       PREFIX                  FREE OF   USED",
                "sandboxes                  10.8.64.0/24            190  190  [###       ] 25%",
                "sandboxes-of-somebody-else 2001:db8:aaaa:bbbb::/64 2^64 2^64 [          ] 0%",
            ]
        );
    }

    #[test]
    fn only_a_name_is_cut() {
        assert_eq!(
            shown(80, true),
            [
                "POOL                 BRIDGE   PREFIX                  FREE OF   USED",
                "sandboxes            br0.4094 10.8.64.0/24            190  190  [###       ] 25%",
                "sandboxes-of-somebod br0.4094 2001:db8:aaaa:bbbb::/64 2^64 2^64 [          ] 0%",
            ]
        );
        assert_eq!(
            shown(51, true),
            [
                "POOL              PREFIX                  FREE OF",
                "sandboxes         10.8.64.0/24            190  190",
                "sandboxes-of-some 2001:db8:aaaa:bbbb::/64 2^64 2^64",
            ]
        );
    }
}
