//! The documentation's example in Go: a client by Debian's generators and libraries.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{agent::Agent, command::output, ctl::CtlOutput};

/// Where Debian has the sources of libraries.
const LIBRARIES: &str = "/usr/share/gocode";

/// Compiles the example in a directory, as it says itself, and returns it, ready for its arguments.
///
/// # Errors
/// It does not compile, or `cargo xtask setup` has not brought what it wants.
pub fn go_example(
    agent: &Agent,
    dir: &Path,
) -> Result<impl Fn(&[&str]) -> Result<CtlOutput> + use<>> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = dir.join("go/src/controller");
    fs::create_dir_all(&source).context("a directory for the example")?;
    fs::copy(top.join("docs/examples/controller.go"), source.join("main.go"))
        .context("the example")?;
    let mut generate = Command::new("protoc");
    generate.arg("--proto_path=guard-agent/proto").current_dir(&top);
    for plugin in ["go", "go-grpc"] {
        generate.arg(format!("--{plugin}_out={}", source.display()));
        let options = "module=controller,Mguard/v1/guard.proto=controller/guardv1";
        generate.arg(format!("--{plugin}_opt={options}"));
    }
    output(generate.arg("guard/v1/guard.proto"))?;

    let program = dir.join("controller");
    let home = std::env::home_dir().context("no home directory")?;
    let mut build = Command::new("go");
    // No module is fetched: the libraries are Debian's.
    build.env("GO111MODULE", "off").env("GOFLAGS", "");
    build.env("GOPATH", format!("{}:{LIBRARIES}", dir.join("go").display()));
    // Compiled once, which takes half a minute.
    build.env("GOCACHE", home.join(".cache/guard/go-build"));
    output(build.arg("build").arg("-o").arg(&program).arg("controller"))?;
    let socket = agent.socket();
    Ok(move |args: &[&str]| {
        CtlOutput::of(Command::new(&program).arg("--socket").arg(&socket).args(args))
    })
}
