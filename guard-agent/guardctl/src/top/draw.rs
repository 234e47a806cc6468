//! The screen, from the top: how the agent is, how fast it goes, what is wrong, and one view.

use guard_api::proto::{Claimant, Conflict, Degraded, Pool, Port, Severity, StatusResponse};
use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    columns::Columns,
    feed::Sample,
    model::{Model, Tab},
};
use crate::{
    output::printable,
    table::folded,
    view::{
        ago,
        conflict::{self, note},
        or_dash,
        pool::{self, bar},
        quantity, segment,
    },
};

/// How many are listed of what is degraded.
const DEGRADED: usize = 4;
/// How many lines there are for each complaint.
const COMPLAINT: usize = 2;
/// How many lines there are for the conflict that is selected, and its claimants.
const DETAILS: u16 = 6;

/// Draws all of it; what has not changed is not sent.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let head = head(model, frame.area().width.into());
    let lines = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let [top, tabs, view, keys] = Layout::vertical([
        Constraint::Length(lines),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(tab_line(model), tabs);
    table(frame, model, view);
    frame.render_widget(Line::from("tab: next view   arrows: move   q: quit").dim(), keys);
}

fn head(model: &Model, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    match &model.sample {
        Some(sample) => {
            lines.push(agent(sample));
            lines.push(Line::from(rates(model)));
            lines.extend(degraded(&sample.status, sample.now, width));
        }
        None => lines.push(Line::from("guard")),
    }
    if let Some(fault) = &model.fault {
        let text = format!("trying again: {fault}");
        lines.extend(complaint(&text, width).into_iter().map(Stylize::bold));
    }
    lines
}

/// What is wrong, with as much of the reason as there is room for.
fn complaint(text: &str, width: usize) -> Vec<Line<'static>> {
    let lines = folded(text, "", width);
    lines.lines().take(COMPLAINT).map(|line| Line::from(line.to_owned()).red()).collect()
}

fn agent(sample: &Sample) -> Line<'static> {
    let StatusResponse { version, ready, boot_pass, bridges, .. } = &sample.status;
    let state = match (ready, &**boot_pass) {
        (true, _) => Span::from("ready").green(),
        (false, "done") => Span::from("not ready").red().bold(),
        (false, _) => Span::from("starting").yellow(),
    };
    let covered: u32 = bridges.iter().map(|bridge| bridge.covered).sum();
    let ports: u32 = bridges.iter().map(|bridge| bridge.ports).sum();
    Line::from(vec![
        Span::from(format!("guard {}  ", text(version))).bold(),
        state,
        Span::from(format!("  {covered} of {ports} ports covered  {:.0}", sample.now)),
    ])
}

fn rates(model: &Model) -> String {
    let rates = &model.rates;
    format!(
        "frames {}/s  handed out {}/s  events {}/s",
        per_second(rates.frames),
        per_second(rates.held),
        per_second(rates.events)
    )
}

fn degraded(status: &StatusResponse, now: Timestamp, width: usize) -> Vec<Line<'static>> {
    let all = &status.degraded;
    let said = |degraded: &Degraded| {
        let (what, why) = (text(&degraded.what), text(&degraded.why));
        complaint(&format!("{what}: {why} ({})", ago(degraded.since, now)), width)
    };
    let mut lines: Vec<_> = all.iter().take(DEGRADED).flat_map(said).collect();
    if all.len() > DEGRADED {
        lines.push(Line::from(format!("and {} more: guardctl status", all.len() - DEGRADED)).red());
    }
    lines
}

fn tab_line(model: &Model) -> Line<'static> {
    let tab = |tab: Tab| {
        let rows = model.rows(tab);
        let text = format!(" {tab:?} {rows} ");
        let bad = tab == Tab::Conflicts && rows > 0;
        let style = if bad { Style::new().fg(Color::Red).bold() } else { Style::new() };
        let style = if tab == model.tab() { style.reversed() } else { style };
        [Span::styled(text, style), Span::from(" ")]
    };
    Line::from(Tab::ALL.into_iter().flat_map(tab).collect::<Vec<_>>())
}

fn table(frame: &mut Frame<'_>, model: &mut Model, area: Rect) {
    let tab = model.tab();
    let Some(sample) = &model.sample else { return };
    let selected = model.places[tab as usize].selected().unwrap_or(0);
    let (columns, below) = match tab {
        Tab::Pools => (pools(&sample.pools), pool_below(sample.pools.get(selected), area.width)),
        Tab::Ports => (ports(sample, model), vec![]),
        Tab::Conflicts => {
            (conflicts(sample), conflict_below(sample.conflicts.get(selected), sample.now))
        }
    };
    let lines = u16::try_from(below.len()).unwrap_or(u16::MAX).min(DETAILS);
    let [list, details] =
        Layout::vertical([Constraint::Min(2), Constraint::Length(lines)]).areas(area);
    let table = columns
        .fitted(area.width)
        .row_highlight_style(Modifier::REVERSED)
        // What is no longer true is not as bright.
        .style(if model.fault.is_some() { Style::new().dim() } else { Style::new() });
    frame.render_stateful_widget(table, list, &mut model.places[tab as usize]);
    frame.render_widget(Paragraph::new(below), details);
}

fn pools(pools: &[Pool]) -> Columns {
    let row = |pool: &Pool| {
        let style = match (pool.capacity, pool.free) {
            (1.., 0) => Style::new().fg(Color::Red),
            _ => Style::new(),
        };
        let cells = vec![
            text(&pool.name),
            printable(&segment(&pool.bridge, pool.vlan)),
            text(&pool.prefix),
            pool::size(pool, pool.free),
            pool::size(pool, pool.capacity),
            bar(pool.utilisation),
        ];
        (cells, style)
    };
    Columns {
        headers: &["POOL", "BRIDGE", "PREFIX", "FREE", "OF", "USED"],
        yields: &["BRIDGE", "USED"],
        cuts_first: true,
        rows: pools.iter().map(row).collect(),
    }
}

/// In full: above it may be cut, or have no column.
fn pool_below(pool: Option<&Pool>, width: u16) -> Vec<Line<'static>> {
    let Some(pool) = pool else { return vec![] };
    let segment = segment(&pool.bridge, pool.vlan);
    let (name, gateway) = (text(&pool.name), text(&pool.gateway));
    let head = folded(&format!("{name} on {segment}, gateway {gateway}"), "", width.into());
    let head = head.lines().map(|line| Line::from(line.to_owned()).bold());
    head.chain([Line::from(pool::states(pool))]).collect()
}

fn ports(sample: &Sample, model: &Model) -> Columns {
    let row = |port: &Port| {
        let style = if port.covered { Style::new() } else { Style::new().fg(Color::Red) };
        let covered = if port.covered { "yes" } else { "no" };
        let cells = vec![
            text(&port.interface),
            text(&port.bridge),
            text(port.kind().word()),
            covered.to_owned(),
            per_second(model.rates.of(port)),
            quantity(port.frames),
            port.addresses.to_string(),
        ];
        (cells, style)
    };
    Columns {
        headers: &["INTERFACE", "BRIDGE", "KIND", "COVERED", "FRAMES/S", "FRAMES", "ADDRESSES"],
        yields: &["ADDRESSES", "KIND", "BRIDGE"],
        cuts_first: false,
        rows: sample.ports.iter().map(row).collect(),
    }
}

fn conflicts(sample: &Sample) -> Columns {
    let row = |conflict: &Conflict| {
        let style = match (conflict.silenced_until, conflict.severity()) {
            (Some(_), _) => Style::new().dim(),
            (None, Severity::Critical) => Style::new().fg(Color::Red).bold(),
            (None, _) => Style::new().fg(Color::Yellow),
        };
        let cells = vec![
            text(&conflict.address),
            text(conflict.kind().word()),
            text(conflict.severity().word()),
            printable(&conflict::segment(conflict)),
            ago(conflict.last_seen, sample.now),
            quantity(conflict::frames(conflict)),
        ];
        (cells, style)
    };
    Columns {
        headers: &["ADDRESS", "KIND", "SEVERITY", "BRIDGE", "LAST", "FRAMES"],
        yields: &["BRIDGE", "FRAMES", "LAST"],
        cuts_first: false,
        rows: sample.conflicts.iter().map(row).collect(),
    }
}

fn conflict_below(conflict: Option<&Conflict>, now: Timestamp) -> Vec<Line<'static>> {
    let Some(conflict) = conflict else { return vec![Line::from("no conflict is open")] };
    // In full: the one is what `guardctl silence` wants, and the other may not fit above.
    let (id, address) = (text(&conflict.id), text(&conflict.address));
    let line = |claimant: &Claimant| Line::from(printable(&note(claimant, now)));
    let mut lines = vec![Line::from(format!("{address}, id {id}")).bold()];
    lines.extend(conflict.claimants.iter().map(line));
    lines
}

fn text(text: &str) -> String {
    printable(or_dash(text))
}

fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate >= 10.0 => format!("{rate:.0}"),
        Some(rate) => format!("{rate:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use guard_api::proto;
    use ratatui::{Terminal, backend::TestBackend};

    use super::{super::feed::Events, *};

    fn sample(frames: u64) -> Sample {
        let name = |length: usize| "n".repeat(length);
        let pool = Pool {
            name: name(60),
            bridge: name(15),
            prefix: "2001:db8:aaaa:bbbb::/64".to_owned(),
            gateway: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:fffe".to_owned(),
            capacity: u64::MAX,
            free: u64::MAX,
            ..Pool::default()
        };
        let port = Port { interface: name(15), frames, covered: true, ..Default::default() };
        let conflict = Conflict {
            id: u64::MAX.to_string(),
            address: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".to_owned(),
            kind: proto::ConflictKind::Duplicate.into(),
            claimants: vec![Claimant { sandbox: name(253), ..Default::default() }; 9],
            ..Conflict::default()
        };
        let degraded = Degraded { what: name(20), since: None, why: name(90) };
        Sample {
            at: std::time::Instant::now(),
            now: Timestamp::UNIX_EPOCH,
            status: StatusResponse { degraded: vec![degraded; 9], ..Default::default() },
            pools: vec![pool],
            ports: vec![port],
            conflicts: vec![conflict],
            events: Some(Events { held: 1, all: 2 }),
        }
    }

    fn screen(terminal: &mut Terminal<TestBackend>, model: &mut Model) -> String {
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn nothing_pushes_the_views_off_eighty_by_twenty_four() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut model = Model::default();
        assert!(screen(&mut terminal, &mut model).contains("q: quit"));
        model.update(Ok(sample(1)));
        for (tab, shown) in [
            (0, "2001:db8:aaaa:bbbb::/64 2^64 2^64 [          ] 0%"),
            (0, "gateway 2001:db8:aaaa:bbbb:cccc:dddd:eeee:fffe"),
            (1, "FRAMES/S"),
            (2, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff duplicate"),
            (2, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff, id 18446744073709551615"),
        ] {
            model.tab = tab;
            let screen = screen(&mut terminal, &mut model);
            for part in [shown, "starting", "and 5 more", "q: quit"] {
                assert!(screen.contains(part), "{part} is not in:\n{screen}");
            }
        }
    }

    #[test]
    fn what_to_do_is_not_cut_off() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut model = Model::default();
        let fault = "cannot reach the agent at /run/guard/guard.sock: No such file or directory \
                     (os error 2); is guard-agent running?";
        model.update(Err(fault.to_owned()));
        let screen = screen(&mut terminal, &mut model);
        assert!(screen.contains("is guard-agent running?"), "{screen}");
    }

    #[test]
    fn rates_need_two_samples_and_an_agent() {
        let mut model = Model::default();
        model.update(Ok(sample(1)));
        assert_eq!(model.rates.frames, None);
        let first = model.sample.as_ref().unwrap().at;
        let later =
            |frames| Sample { at: first + std::time::Duration::from_secs(2), ..sample(frames) };
        model.update(Ok(later(21)));
        assert_eq!((model.rates.frames, model.rates.held), (Some(10.0), Some(0.5)));
        model.update(Err("gone".to_owned()));
        assert!(model.rates.frames.is_none() && model.sample.is_some());
        // Counters that began anew are no rate.
        model.update(Ok(sample(1)));
        model.update(Ok(later(0)));
        assert_eq!(model.rates.frames, Some(0.0));
    }
}
