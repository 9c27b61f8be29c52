//! A call on its way to the API: every transport puts it into the one channel that the agent reads.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::ApiError;

/// A call that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// Verb.
    pub method: String,
    /// Parameters.
    pub params: Value,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Value, ApiError>>,
}

/// Hands a call over and waits for its answer.
///
/// # Errors
/// The API's, or that the agent is stopping.
pub async fn ask(calls: &mpsc::Sender<Call>, method: String, params: Value) -> Result<Value, ApiError> {
    let (reply, answer) = oneshot::channel();
    let gone = || ApiError::Failed("piboot is stopping".to_owned());
    calls.send(Call { method, params, reply }).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
