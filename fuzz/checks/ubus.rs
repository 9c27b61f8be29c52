//! What has to hold of any bytes that come from a ubus broker: the body of the fuzz target, and of tests/ubus_codec.rs for
//! the stored inputs.

use piboot::ubus::message;
use piboot::ubus::value::{self, ValueError};

/// A stream of messages; whether the first was understood.
pub(crate) fn messages(stream: &[u8]) -> bool {
    let (mut rest, mut first) = (stream, None);
    while let Ok(Some((message, length))) = message::next(rest) {
        let understood = message.is_some();
        if let Some(data) = message.and_then(|message| message.attributes.data) {
            table(data);
        }
        first = first.or(Some(understood));
        assert!(length >= 12, "there is always progress");
        rest = &rest[length..];
    }
    first.unwrap_or(false)
}

/// What was understood of a table can be said again, and is understood again as the same.
fn table(bytes: &[u8]) {
    let Ok(decoded) = value::decode(bytes) else { return };
    match value::encode(&decoded, 1 << 24) {
        Ok(again) => assert_eq!(value::decode(again.contents()), Ok(decoded)),
        // Foreign names may hold what ours may not.
        Err(error) => assert_eq!(error, ValueError::Nul),
    }
}
