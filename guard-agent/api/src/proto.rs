//! Messages, clients and servers, generated from `guard-agent/proto`, where they are documented.
//!
//! The generated code is checked in. After a change of a proto file,
//! `UPDATE_EXPECT=1 cargo test -p guard-api --test generated` writes it anew.
#![expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the proto file documents every message"
)]

include!("generated/guard.v1.rs");
#[cfg(feature = "serde")]
include!("generated/guard.v1.json.rs");

/// What a controller may serve: `guard/directory/v1/directory.proto`.
pub mod directory {
    include!("generated/guard.directory.v1.rs");
}

/// The part of containerd's API that the agent calls.
pub mod containerd {
    /// Its containers.
    pub mod containers {
        include!("generated/containerd.services.containers.v1.rs");
    }

    /// Its events.
    pub mod events {
        include!("generated/containerd.services.events.v1.rs");
    }

    /// The snapshots of containers.
    pub mod snapshots {
        include!("generated/containerd.services.snapshots.v1.rs");
    }

    /// The processes of containers.
    pub mod tasks {
        include!("generated/containerd.services.tasks.v1.rs");
    }
}

/// The descriptor set of `guard.v1`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/guard.v1.bin");
