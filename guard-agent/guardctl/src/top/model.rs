//! What is on the screen: the last sample, the rates since the one before, and where one is.

use std::{collections::HashMap, time::Instant};

use guard_api::proto::Port;
use ratatui::{
    crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    widgets::TableState,
};

use super::feed::Sample;

/// How far a page goes.
const PAGE: u16 = 10;

/// The views, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Pools,
    Ports,
    Conflicts,
}

impl Tab {
    pub(super) const ALL: [Self; 3] = [Self::Pools, Self::Ports, Self::Conflicts];
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Away,
}

/// A port; an interface's number is not used twice while it exists.
type Key = (u32, String);

/// Frames of each port so far.
type Frames = HashMap<Key, u64>;

#[derive(Default)]
pub(super) struct Model {
    /// The last that was heard.
    pub sample: Option<Sample>,
    /// Why nothing was heard since.
    pub fault: Option<String>,
    /// Which view there is, by its number.
    pub tab: usize,
    /// Where one is in each.
    pub places: [TableState; 3],
    pub rates: Rates,
    before: Option<(Instant, Frames)>,
}

/// In a second. None before there are two samples.
#[derive(Default)]
pub(super) struct Rates {
    pub frames: Option<f64>,
    pub held: Option<f64>,
    pub events: Option<f64>,
    ports: HashMap<Key, f64>,
}

impl Rates {
    /// Of one port.
    pub(super) fn of(&self, port: &Port) -> Option<f64> {
        self.ports.get(&key(port)).copied()
    }
}

impl Model {
    /// The view that is shown.
    pub(super) fn tab(&self) -> Tab {
        Tab::ALL[self.tab % Tab::ALL.len()]
    }

    /// How many rows a view has.
    pub(super) fn rows(&self, tab: Tab) -> usize {
        let Some(sample) = &self.sample else { return 0 };
        match tab {
            Tab::Pools => sample.pools.len(),
            Tab::Ports => sample.ports.len(),
            Tab::Conflicts => sample.conflicts.len(),
        }
    }

    /// Takes in what the agent says, or that it says nothing.
    pub(super) fn update(&mut self, update: Result<Sample, String>) {
        match update {
            Ok(sample) => {
                self.measure(&sample);
                self.sample = Some(sample);
                self.fault = None;
                for tab in Tab::ALL {
                    let rows = self.rows(tab);
                    let place = &mut self.places[tab as usize];
                    let last = rows.checked_sub(1);
                    place.select(last.map(|last| place.selected().unwrap_or(0).min(last)));
                }
            }
            Err(fault) => {
                self.fault = Some(fault);
                self.before = None;
                self.rates = Rates::default();
            }
        }
    }

    fn measure(&mut self, sample: &Sample) {
        let frames: Frames = sample.ports.iter().map(|port| (key(port), port.frames)).collect();
        self.rates = Rates::default();
        if let Some((at, before)) = &self.before {
            let seconds = sample.at.duration_since(*at).as_secs_f64().max(f64::EPSILON);
            for (port, frames) in &frames {
                // One that is new, or whose counters began anew, has no past.
                let since = before.get(port).and_then(|before| frames.checked_sub(*before));
                if let Some(since) = since {
                    self.rates.ports.insert(port.clone(), rate(since, seconds));
                }
            }
            // A sum of nothing would be -0.0.
            self.rates.frames = Some(self.rates.ports.values().fold(0.0, |sum, rate| sum + rate));
            self.rates.held = sample.events.map(|events| rate(events.held, seconds));
            self.rates.events = sample.events.map(|events| rate(events.all, seconds));
        }
        self.before = Some((sample.at, frames));
    }

    /// Does what a key says.
    pub(super) fn event(&mut self, event: &Event) -> Go {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
            // A new size is drawn like anything else.
            return Go::On;
        };
        let place = &mut self.places[self.tab % Tab::ALL.len()];
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Go::Away,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Go::Away,
            KeyCode::Tab | KeyCode::Right => self.tab = (self.tab + 1) % Tab::ALL.len(),
            KeyCode::BackTab | KeyCode::Left => {
                self.tab = (self.tab + Tab::ALL.len() - 1) % Tab::ALL.len();
            }
            KeyCode::Down => place.scroll_down_by(1),
            KeyCode::Up => place.scroll_up_by(1),
            KeyCode::PageDown => place.scroll_down_by(PAGE),
            KeyCode::PageUp => place.scroll_up_by(PAGE),
            KeyCode::Home => place.select_first(),
            KeyCode::End => place.select_last(),
            _ => {}
        }
        Go::On
    }
}

fn key(port: &Port) -> Key {
    (port.ifindex, port.interface.clone())
}

fn rate(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let count = count as f64;
    count / seconds
}
