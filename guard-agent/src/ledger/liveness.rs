//! Whether the writer is alive.

use std::time::Duration;

use tokio::time::timeout;

use super::Ledger;

/// How long the writer may take to answer before it counts as stuck.
const WRITER: Duration = Duration::from_secs(5);

/// Whether the store's writer answers. One without a store does: a restart would make none whole.
///
/// # Errors
/// Why not.
pub async fn writer_answers(ledger: &Ledger) -> Result<(), String> {
    match timeout(WRITER, ledger.pools()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) if refusal.reason.is_store() => Ok(()),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(_) => Err(format!("its writer has not answered for {WRITER:?}; is the disk stuck?")),
    }
}
