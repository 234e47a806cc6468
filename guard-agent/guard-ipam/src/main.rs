//! `guard-ipam`: the CNI plugin, a thin client of the agent's API.
//!
//! As the `ipam` of another plugin, or called directly, it allocates and releases: the owner of a
//! lease is the container id, its key is `NETWORK/IFNAME`. Chained after a plugin like `bridge` it
//! binds what that plugin made: the host's side of the veth, and the MAC in the container.
//!
//! It speaks the CNI specification, versions 0.1.0 to 1.1.0: variables and a JSON document in, a
//! JSON document out, also for an error.

mod add;
mod agent;
mod call;
mod chained;
mod choice;
mod conf;
mod del;
mod error;
mod result;
mod verify;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use call::{Call, Command};
use conf::{NetConf, Role};
use error::Error;
use guard_api::{bounds, files};
use serde_json::{Value, json};

/// The versions of the specification that it speaks, oldest first.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn main() -> ExitCode {
    if let Some(text) = by_hand(std::env::args_os().nth(1)) {
        return match write!(io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let mut version = VERSIONS[VERSIONS.len() - 1].to_owned();
    let (document, code) = match carry_out(&mut version) {
        Ok(document) => (document, ExitCode::SUCCESS),
        Err(error) => (Some(error.document(&version)), ExitCode::FAILURE),
    };
    if let Some(document) = document
        && let Err(error) = writeln!(io::stdout(), "{document}")
    {
        // Where stderr is closed too, the exit code is all that is left to say.
        let _ = writeln!(io::stderr(), "guard-ipam: cannot write the answer: {error}");
        return ExitCode::FAILURE;
    }
    code
}

/// What a call says that no runtime makes: those have no arguments, and say in the environment what they
/// want.
fn by_hand(argument: Option<OsString>) -> Option<String> {
    let version = format!("guard-ipam {}\n", env!("CARGO_PKG_VERSION"));
    match argument {
        Some(argument) if argument == "--version" || argument == "-V" => Some(version),
        None if std::env::var_os("CNI_COMMAND").is_some() => None,
        _ => Some(format!(
            "{version}The CNI plugin that gives containers addresses from guard's agent, of the versions \
             {}.\nContainer runtimes call it, as the `ipam` of a network or chained after `bridge`; the \
             guide has a network to copy. By hand: CNI_COMMAND=VERSION guard-ipam < /dev/null\n",
            VERSIONS.join(", ")
        )),
    }
}

fn carry_out(version: &mut String) -> Result<Option<Value>, Error> {
    let (command, mut text) = (Command::read(), String::new());
    // Whatever else is wrong: a runtime that cannot write all of it never reads the answer. People
    // who try it by hand are not to wait.
    if command.is_ok() || !io::stdin().is_terminal() {
        let input = io::stdin().lock();
        text = files::read_from(input, "the configuration", bounds::CONFIGURATION)
            .map_err(Error::Input)?;
    }
    let command = command?;
    if command == Command::Version {
        // A runtime asks with its own version, which may be one that is not spoken here.
        if let Some(asked) = conf::version_of(&text) {
            *version = asked;
        }
        return Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS })));
    }
    let conf = NetConf::parse(&text, version)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(answer(command, &conf))
}

async fn answer(command: Command, conf: &NetConf) -> Result<Option<Value>, Error> {
    match (command, conf.role()?) {
        (Command::Add, Role::Ipam(ipam)) => add::add(conf, ipam, &Call::read()?).await.map(Some),
        (Command::Add, Role::Chained(previous)) => {
            chained::bind(conf, previous, &Call::read()?).await?;
            Ok(Some(previous.clone()))
        }
        (Command::Del, Role::Ipam(_)) => del::del(conf, &Call::read()?).await.map(|()| None),
        // What it bound ends with the lease, which is its allocator's to release.
        (Command::Del, Role::Chained(_)) => Ok(None),
        (Command::Check, Role::Ipam(_)) => verify::check(conf, &Call::read()?).await.map(|()| None),
        (Command::Check, Role::Chained(previous)) => {
            chained::check(conf, previous, &Call::read()?).await.map(|()| None)
        }
        (Command::Gc, _) => del::collect(conf).await.map(|()| None),
        (Command::Status, _) => verify::status(conf).await.map(|()| None),
        (Command::Version, _) => Ok(None),
    }
}
