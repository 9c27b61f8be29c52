//! A call on its way to the API: every transport puts it into the one channel that the agent reads.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::ApiError;
use crate::incoming::upload::Body;

/// A call that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// Verb.
    pub method: String,
    /// Parameters.
    pub params: Value,
    /// The bytes that follow the request, where the transport carries any.
    pub body: Option<Body>,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// Hands a call over and waits for its answer.
///
/// # Errors
/// The API's, or that the agent is stopping.
pub async fn ask(calls: &mpsc::Sender<Call>, method: String, params: Value) -> Result<Value, ApiError> {
    ask_with(calls, method, params, None).await
}

/// The same for a verb that takes bytes ([`STREAMED`](super::methods::STREAMED)).
///
/// # Errors
/// The API's, or that the agent is stopping.
pub async fn ask_with(
    calls: &mpsc::Sender<Call>,
    method: String,
    params: Value,
    body: Option<Body>,
) -> Result<Value, ApiError> {
    let (reply, answer) = oneshot::channel();
    let gone = || ApiError::Failed("piboot is stopping".to_owned());
    calls.send(Call { method, params, body, reply }).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
