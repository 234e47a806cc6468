//! `guardctl`: people and scripts talk to the agent, over its API.
//!
//! Exit codes: 0 done (also for the outcomes `stale` and `not_found`), 1 the agent refused,
//! 2 usage, 3 the agent cannot be reached.

mod cli;
mod command;
mod enforce;
mod error;
mod help;
mod local;
mod operator;
mod output;
mod progress;
mod replay;
mod stream;
mod table;
mod top;
mod view;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::FromArgMatches as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let asked = cli::Cli::from_arg_matches(&help::command().get_matches());
    match command::run(asked.unwrap_or_else(|error| error.exit())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                // Where stderr is closed, the exit code is all that is left to say.
                let _ = writeln!(io::stderr(), "{message}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
