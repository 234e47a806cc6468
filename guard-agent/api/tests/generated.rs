//! The checked-in code is what the proto files generate. `UPDATE_EXPECT=1 cargo test -p guard-api
//! --test generated` writes it anew.

mod json;

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use prost::Message as _;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/generated");

type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn the_generated_code_is_fresh() -> Result<(), Box<dyn Error>> {
    let fresh = generate()?;
    let stored = read(Path::new(GENERATED))?;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        for name in stored.keys().filter(|name| !fresh.contains_key(*name)) {
            fs::remove_file(Path::new(GENERATED).join(name))?;
        }
        for (name, bytes) in &fresh {
            fs::write(Path::new(GENERATED).join(name), bytes)?;
        }
        return Ok(());
    }
    let names = fresh.keys().chain(stored.keys());
    let stale: Vec<_> = names.filter(|name| fresh.get(*name) != stored.get(*name)).collect();
    assert!(stale.is_empty(), "not what guard-agent/proto generates: {stale:?}");
    Ok(())
}

fn generate() -> Result<Files, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let guard = protox::compile(["guard/v1/guard.proto"], [PROTO])?;
    fs::write(dir.path().join("guard.v1.bin"), guard.encode_to_vec())?;
    let own = guard.file.iter().find(|file| file.package() == "guard.v1");
    fs::write(dir.path().join("guard.v1.json.rs"), own.map(json::generate).unwrap_or_default())?;
    // Others serve these and the agent calls them; the servers are for tests.
    let others = protox::compile(
        [
            "guard/directory/v1/directory.proto",
            "containerd/containers.proto",
            "containerd/events.proto",
            "containerd/snapshots.proto",
            "containerd/tasks.proto",
        ],
        [PROTO],
    )?;
    for files in [guard, others] {
        tonic_prost_build::configure().out_dir(dir.path()).compile_fds(files)?;
    }
    read(dir.path())
}

fn read(dir: &Path) -> Result<Files, Box<dyn Error>> {
    let mut files = Files::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(files)
}
