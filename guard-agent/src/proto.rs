//! The API's messages, client and server, generated from `proto/guard/v1/guard.proto`, where they
//! are documented.
#![expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the proto file documents every message"
)]

tonic::include_proto!("guard.v1");

/// What a controller may serve: `proto/guard/directory/v1/directory.proto`.
pub mod directory {
    tonic::include_proto!("guard.directory.v1");
}

/// What is used of containerd's API.
pub mod containerd {
    /// Its containers.
    pub mod containers {
        tonic::include_proto!("containerd.services.containers.v1");
    }

    /// Its events.
    pub mod events {
        tonic::include_proto!("containerd.services.events.v1");
    }

    /// Their snapshots.
    pub mod snapshots {
        tonic::include_proto!("containerd.services.snapshots.v1");
    }

    /// What runs in them.
    pub mod tasks {
        tonic::include_proto!("containerd.services.tasks.v1");
    }
}

/// The descriptor set, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guard.v1.bin"));
