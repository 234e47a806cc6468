//! A terminal with a program in it, which can be typed at and looked at: tmux.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::{
    agent::Agent,
    command::{binary, output},
    lab::Lab,
    reaper::Reaper,
    wait::eventually,
};

/// How wide a terminal is, and how high: what has always been usual.
const SIZE: (u16, u16) = (80, 24);

static TERMINALS: AtomicU32 = AtomicU32::new(0);

/// A tmux server of the lab's own with one window. It ends when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    sent: PathBuf,
}

impl Lab {
    /// Runs a program in a terminal. What it wrote stays on the screen after its end.
    ///
    /// # Errors
    /// tmux is not installed.
    pub fn terminal(&self, command: &Command) -> Result<Terminal> {
        let number = TERMINALS.fetch_add(1, Ordering::Relaxed);
        Terminal::start(self.dir().join(format!("tmux-{number}")), command, &self.reaper())
    }
}

impl Agent {
    /// Runs `guardctl` in a terminal.
    ///
    /// # Errors
    /// As [`Lab::terminal`].
    pub fn ctl_in_terminal(&self, lab: &Lab, args: &[&str]) -> Result<Terminal> {
        let mut command = Command::new(binary("guardctl")?);
        command.args(args).arg("--socket").arg(self.socket());
        lab.terminal(&command)
    }
}

impl Terminal {
    fn start(socket: PathBuf, command: &Command, reaper: &Arc<Reaper>) -> Result<Self> {
        let terminal = Self { sent: socket.with_extension("sent"), socket };
        let (width, height) = SIZE;
        let mut tmux = terminal.tmux();
        // The server stays, and so does what was last on the screen.
        tmux.args(["set-option", "-g", "remain-on-exit", "on", ";", "new-session", "-d"]);
        tmux.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        // It starts once all it writes is kept.
        tmux.args(["sh", "-c", "read -r _; exec \"$@\"", "sh"]);
        tmux.arg(command.get_program()).args(command.get_args());
        output(&mut tmux)?;
        let pid = output(terminal.tmux().args(["display-message", "-p", "#{pid}"]))?;
        reaper.pid(pid.trim().parse().context("the server's process id")?)?;
        let keep = format!("exec cat > {}", terminal.sent.display());
        output(terminal.tmux().args(["pipe-pane", "-o", &keep]))?;
        terminal.press(&["Enter"])?;
        Ok(terminal)
    }

    /// Presses keys, by the names that tmux gives them.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        output(self.tmux().arg("send-keys").args(keys)).map(drop)
    }

    /// What is on the screen, without colours.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn screen(&self) -> Result<String> {
        output(self.tmux().args(["capture-pane", "-p"]))
    }

    /// Waits until all of this is on the screen, and returns it.
    ///
    /// # Errors
    /// It does not come; with what is there instead.
    pub fn await_screen(&self, parts: &[&str]) -> Result<String> {
        let mut last = String::new();
        let found = eventually(&format!("{parts:?} on the screen"), || {
            last = self.screen()?;
            Ok(parts.iter().all(|part| last.contains(part)).then(|| last.clone()))
        });
        found.with_context(|| format!("the screen:\n{last}"))
    }

    /// Waits for the end of the program, and returns its exit code.
    ///
    /// # Errors
    /// It goes on, or a signal ended it.
    pub fn await_exit(&self) -> Result<i32> {
        // A server that has missed the end of one child hears of it with that of another.
        let another = ["run-shell", "-b", "true", ";"];
        let status =
            ["display-message", "-p", "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}"];
        let mut last = String::new();
        let code = eventually("the end of the program", || {
            last = output(self.tmux().args(another).args(status))?;
            // It is dead a moment before it is known of what.
            let mut words = last.split(' ').map(str::trim);
            let dead = words.next() == Some("1");
            let ended = words.find(|word| !word.is_empty()).filter(|_| dead);
            Ok(ended.map(str::to_owned))
        })
        .with_context(|| format!("{last:?}; the screen:\n{}", self.screen().unwrap_or_default()))?;
        code.parse().with_context(|| format!("it ended with {code:?}"))
    }

    /// All that the program has sent to the terminal so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sent(&self) -> Result<String> {
        let sent = std::fs::read(&self.sent).context("what was sent to the terminal")?;
        Ok(String::from_utf8_lossy(&sent).into_owned())
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).env_remove("TMUX");
        // It draws with more than ASCII wherever it may.
        tmux.arg("-u").env("TERM", "xterm");
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}
