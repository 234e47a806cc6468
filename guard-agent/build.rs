//! Compiles the API's proto files and the eBPF programs, both from source, into `OUT_DIR`.

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// The toolchain of `rust-toolchain.toml`, by the name that `rustup run` wants.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    proto()?;
    ebpf()
}

fn proto() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let files = compile(&["guard/v1/guard.proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("guard.v1.bin"), prost_encode(&files))?;
    tonic_prost_build::configure().compile_fds(files).context("guard.proto")?;
    // Others serve these, and the agent calls them; the servers are for tests.
    let files = compile(&[
        "guard/directory/v1/directory.proto",
        "containerd/containers.proto",
        "containerd/events.proto",
        "containerd/snapshots.proto",
        "containerd/tasks.proto",
    ])?;
    tonic_prost_build::configure().compile_fds(files).context("others' proto files")
}

fn compile(files: &[&str]) -> anyhow::Result<prost_types::FileDescriptorSet> {
    protox::compile(files, ["proto"]).with_context(|| files.join(", "))
}

/// The descriptor set, for server reflection.
fn prost_encode(files: &impl prost::Message) -> Vec<u8> {
    files.encode_to_vec()
}

fn ebpf() -> anyhow::Result<()> {
    #[expect(unsafe_code, reason = "what aya-build starts can be told only by the environment")]
    // SAFETY: nothing else runs in a build script.
    unsafe {
        // The stable compiler builds the eBPF target, which needs `-Z build-std`.
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build repeats each line of the inner cargo as a warning of ours.
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    let package = Package {
        name: "guard-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-ebpf"),
        features: &["program"],
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(TOOLCHAIN))
        .context("the eBPF programs did not build; `cargo xtask setup` installs what they need")
}
