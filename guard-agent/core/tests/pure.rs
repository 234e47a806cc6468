//! What guard-core may depend on is named here, so that nothing comes in unseen: it builds and tests
//! without bpf-linker, tokio, aya, SQLite and tonic, and no clock, socket or file is within its reach.

use std::process::Command;

/// What none of its dependencies, however deep, may be.
const FORBIDDEN: [&str; 9] = [
    "aya",
    "aya-build",
    "guard-agent",
    "libsqlite3-sys",
    "nix",
    "parking_lot",
    "prost",
    "tokio",
    "tonic",
];

/// Words of the standard library and of jiff that no function here needs.
const IMPURE: [&str; 9] = [
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "std::fs",
    "std::thread",
    "std::process",
    "UdpSocket",
    "TcpStream",
    "async fn",
];

#[test]
fn no_runtime_kernel_store_or_wire_is_among_the_dependencies() {
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", "guard-core"])
        .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(cargo.stdout).unwrap();
    assert!(tree.starts_with("guard-core"), "{}", String::from_utf8_lossy(&cargo.stderr));
    for name in tree.lines().filter_map(|line| line.split(' ').next()) {
        assert!(!FORBIDDEN.contains(&name), "guard-core depends on {name}:\n{tree}");
    }
}

#[test]
fn no_source_names_a_clock_a_file_or_a_task() {
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for word in IMPURE {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}
