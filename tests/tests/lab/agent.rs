//! Starting, ending and reading a program, with a stand-in that does as it is told.

use anyhow::Result;
use guard_tests::{Lab, Launch};

/// Says that it is ready, says where it is, and waits for a signal.
const READY: &str = r#"
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ.get("CODE", "0"))))
print("INFO in", os.readlink("/proc/self/ns/net"), *sys.argv[2:], file=sys.stderr, flush=True)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"STATUS=up\nREADY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"#;

fn stand_in(script: &str) -> Launch {
    Launch::text("").under(&["python3", "-c", script]).degraded()
}

#[test]
fn it_runs_in_the_namespace_of_the_host_and_starts_again() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent_with(stand_in(READY))?;
    let host = lab.host().run(|| std::fs::read_link("/proc/thread-self/ns/net"))??;
    let said = ["INFO in", &host.to_string_lossy(), "run --config", "agent.toml"];
    agent.journal().await_line(&said)?;
    agent.stop()?;
    assert!(agent.stop().is_err(), "it was stopped twice");
    agent.start_again()?;
    agent.kill()?;
    agent.start_again()?;
    agent.journal().await_line(&said)?;
    assert_eq!(agent.journal().count(&said), 1);
    Ok(())
}

#[test]
fn a_program_that_gives_up_is_not_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    let gives_up = "import sys; sys.exit('no such thing')";
    let error = lab.agent_with(stand_in(gives_up)).map(drop).unwrap_err().to_string();
    assert!(error.contains("no such thing") && error.contains("READY=1"), "{error}");
    let exit = lab.agent_that_fails(stand_in(gives_up))?;
    assert_eq!((exit.code, exit.log.as_str()), (Some(1), "no such thing"));
    Ok(())
}

#[test]
fn a_stop_that_is_not_clean_is_an_error() -> Result<()> {
    let lab = Lab::new()?;
    let script = format!("import os\nos.environ['CODE'] = '7'\n{READY}");
    let agent = lab.agent_with(stand_in(&script))?;
    let error = agent.stop().unwrap_err().to_string();
    assert!(error.contains("Some(7)"), "{error}");
    Ok(())
}
