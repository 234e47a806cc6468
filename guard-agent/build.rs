//! Compiles the eBPF programs from source into `OUT_DIR`.

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// The toolchain of `rust-toolchain.toml`, by the name that `rustup run` wants.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
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
