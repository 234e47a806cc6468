//! A part of an answer, as the connection has it.

use bytes::{Buf, Bytes};

use super::Held;

/// Some bytes of an answer. The connection drops them once they are written, or nobody wants them any more,
/// and with the last of them what is held for the answer.
pub(super) struct Part {
    bytes: Bytes,
    _held: Option<Held>,
}

impl Part {
    pub(super) fn new(bytes: Bytes, held: Option<&Held>) -> Self {
        Self { bytes, _held: held.cloned() }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
