//! The object `piboot`: its methods with their parameters, and what an answer or an error is on the bus.

use serde_json::{Value, json};
use ubus_zero::blobmsg::BlobType;
use ubus_zero::wire::{
    MAX_MSG_LEN, UBUS_STATUS_INVALID_ARGUMENT, UBUS_STATUS_METHOD_NOT_FOUND, UBUS_STATUS_NOT_FOUND, UBUS_STATUS_OK,
    UBUS_STATUS_UNKNOWN_ERROR,
};
use ubus_zero::{BlobBuilder, BlobMsgTable};

use super::value::{self, ValueError};
use crate::api::ApiError;
use crate::api::methods::{METHODS, ParameterType};

/// Path of the object.
pub(super) const PATH: &str = "piboot";
/// Longest table in an answer: ubusd drops whoever sends a message above 1 MiB, envelope included.
pub(super) const MAX_ANSWER: usize = MAX_MSG_LEN - 64;
/// Longest error text; it may quote what the caller sent.
const MAX_ERROR: usize = 4096;

/// What `ubus -v list piboot` shows: a table for each method, with the type of each parameter.
pub(super) fn signature() -> Vec<u8> {
    let mut methods = BlobBuilder::new();
    for (method, parameters) in METHODS {
        methods.open_table(Some(method));
        for (name, kind) in *parameters {
            let kind = match kind {
                ParameterType::String => BlobType::String,
                ParameterType::Integer => BlobType::Int32,
                ParameterType::Boolean => BlobType::Int8,
                ParameterType::Strings => BlobType::Array,
            };
            methods.put_i32(Some(name), kind as i32);
        }
        methods.close_table();
    }
    methods.finish()
}

/// Table and status that answer a call of `method`.
///
/// An error is a table `{"error": {"code", "message"}}` and then a status other than 0. `ubus call` prints the one and exits
/// with the other; uhttpd's `/ubus`, which LuCI uses, answers `[status, table]`. Bindings for scripts (Lua, ucode) keep the
/// status only.
pub(super) fn answer(method: &str, result: Result<Value, ApiError>) -> (BlobMsgTable, i32) {
    let encoded = result.and_then(|answer| value::encode(&answer, MAX_ANSWER).map_err(|e| unsaid(method, &e)));
    match encoded {
        Ok(table) => (table, UBUS_STATUS_OK),
        Err(error) => {
            let text: String = error.to_string().replace('\0', "\u{fffd}").chars().take(MAX_ERROR).collect();
            let table = value::encode(&json!({ "error": { "code": error.code(), "message": text } }), MAX_ANSWER);
            (table.unwrap_or_else(|_| BlobMsgTable::empty()), status(&error))
        }
    }
}

const fn status(error: &ApiError) -> i32 {
    match error {
        ApiError::UnknownMethod(_) => UBUS_STATUS_METHOD_NOT_FOUND,
        ApiError::InvalidArgument(_) => UBUS_STATUS_INVALID_ARGUMENT,
        ApiError::NotFound(_) => UBUS_STATUS_NOT_FOUND,
        ApiError::Failed(_) => UBUS_STATUS_UNKNOWN_ERROR,
    }
}

fn unsaid(method: &str, error: &ValueError) -> ApiError {
    let takes_limit =
        METHODS.iter().any(|(name, parameters)| *name == method && parameters.iter().any(|(p, _)| *p == "limit"));
    ApiError::Failed(match error {
        ValueError::Large(_) if takes_limit => {
            format!(
                "the answer of '{method}' does not fit into one ubus message (1 MiB): ask for less at once with 'limit'"
            )
        }
        ValueError::Large(_) => format!(
            "the answer of '{method}' does not fit into one ubus message (1 MiB): 'piboot --json' gets it over the local socket"
        ),
        other => format!("the answer of '{method}' cannot be said over ubus: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(method: &str, result: Result<Value, ApiError>) -> (String, String, i32) {
        let (table, status) = answer(method, result);
        let said = value::decode(table.contents()).unwrap();
        let part = |name| said["error"][name].as_str().unwrap().to_owned();
        (part("code"), part("message"), status)
    }

    #[test]
    fn each_error_has_its_status_and_says_why() {
        let why = || "why".to_owned();
        let errors = [
            (ApiError::InvalidArgument(why()), "invalid_argument", "why", 2),
            (ApiError::UnknownMethod(why()), "unknown_method", "there is no method 'why'", 3),
            (ApiError::NotFound(why()), "not_found", "why", 4),
            (ApiError::Failed(why()), "failed", "why", 9),
        ];
        for (error, code, message, status) in errors {
            assert_eq!(error_of("status", Err(error)), (code.to_owned(), message.to_owned(), status));
        }
        let (_, message, _) = error_of("device", Err(ApiError::NotFound("\0".repeat(10 * MAX_ERROR))));
        assert_eq!(message, "\u{fffd}".repeat(MAX_ERROR));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused_with_a_way_out() {
        // Eight bytes for the member, three of padding and NUL.
        let text = |length| Ok(json!({ "a": "x".repeat(length) }));
        let (table, status) = answer("boots", text(MAX_ANSWER - 9));
        assert_eq!((table.contents().len(), status), (MAX_ANSWER, 0));
        let (code, message, status) = error_of("boots", text(MAX_ANSWER - 8));
        assert_eq!((code.as_str(), status), ("failed", 9));
        assert!(message.contains("with 'limit'"), "{message}");
        let (_, message, _) = error_of("devices", text(MAX_ANSWER));
        assert!(message.contains("piboot --json"), "{message}");
        let (_, message, _) = error_of("devices", Ok(json!({ "a": "\0" })));
        assert!(message.contains("NUL"), "{message}");
    }
}
