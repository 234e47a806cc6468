//! `top`: a live view of the pools, the ports, the conflicts and how fast they change.
//!
//! It is made from the API's own lists, once a second, so that it shows nothing that a script could
//! not have. A task asks the agent, and starts over when that goes away; the screen is drawn when
//! something on it has changed, and then only what has, which a slow line can carry.

mod columns;
mod draw;
mod feed;
mod model;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    thread,
};

use ratatui::{DefaultTerminal, crossterm::event};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, channel, unbounded_channel},
};

use self::model::{Go, Model};
use crate::{cli::Format, error::Error, output::Output};

/// Shows what there is until somebody leaves.
///
/// # Errors
/// There is no terminal, or it cannot be drawn on.
pub(crate) async fn run(socket: PathBuf, Output(format): Output) -> Result<(), Error> {
    if format == Format::Json || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let why = "top is for people at a terminal; scripts have `guardctl status -o json`, and \
                   the lists";
        return Err(Error::Usage(why.to_owned()));
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, socket).await;
    ratatui::restore();
    outcome
}

async fn watch(terminal: &mut DefaultTerminal, socket: PathBuf) -> Result<(), Error> {
    let (sender, mut updates) = channel(1);
    let feed = tokio::spawn(feed::run(socket, sender));
    let mut keys = keys();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut model = Model::default();
    let outcome = loop {
        terminal.draw(|frame| draw::draw(frame, &mut model))?;
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            Some(update) = updates.recv() => model.update(update),
            event = keys.recv() => match event.map(|event| model.event(&event)) {
                Some(Go::On) => {}
                // The terminal is gone, too, where no event can come any more.
                Some(Go::Away) | None => break Ok(()),
            },
        }
    };
    feed.abort();
    outcome
}

/// What is typed. The thread ends with the process, as it cannot be woken.
fn keys() -> UnboundedReceiver<event::Event> {
    let (sender, keys) = unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    keys
}
