//! Messages between the broker and its clients: a header, and attributes in an envelope (ubusmsg.h).

use ubus_zero::envelope::{EnvBuilder, UbusAttr, iter_attrs};
use ubus_zero::wire::{HEADER_SIZE, MAX_MSG_LEN};
use ubus_zero::{Header, MsgType, UbusError as CodecError};

/// Header and the length of the envelope: what has to be there before anything can be said of a message.
const PREFIX: usize = HEADER_SIZE + 4;

/// The stream is none of ubus: where the next message begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another protocol, or a version that does not exist yet.
    #[error("the broker does not speak ubus: {0}")]
    Header(String),
    /// Too short for its own length, or longer than ubus allows.
    #[error("the broker sent a message of {0} bytes")]
    Length(usize),
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: MsgType,
    /// Pairs requests with what answers them.
    pub seq: u16,
    /// The other side: a client's number, or an object's.
    pub peer: u32,
    /// What it says.
    pub attributes: Attributes<'a>,
}

/// The attributes that matter here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes<'a> {
    /// How a request ended.
    pub status: Option<u32>,
    /// Path of an object.
    pub path: Option<&'a str>,
    /// Number of an object.
    pub object: Option<u32>,
    /// Method, event or kind of notification.
    pub method: Option<&'a str>,
    /// Number of the object that an unsubscription is about.
    pub target: Option<u32>,
    /// Whether an object has subscribers.
    pub active: Option<bool>,
    /// The caller does not wait.
    pub no_reply: bool,
    /// Whom the broker knows the caller as.
    pub user: Option<&'a str>,
    /// A table's contents.
    pub data: Option<&'a [u8]>,
}

/// The first message in `bytes`, and how many of them it takes; nothing if it is not complete. A message of a kind that is
/// not known yet, or whose envelope is damaged, is passed over: `None` with its length.
///
/// # Errors
/// When what follows cannot be found.
pub fn next(bytes: &[u8]) -> Result<Option<(Option<Message<'_>>, usize)>, MessageError> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [.., a, b, c, d] = *prefix;
    // The upper byte is no part of the length.
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d]) & 0x00ff_ffff).unwrap_or(usize::MAX);
    if !(4..=MAX_MSG_LEN).contains(&length) {
        return Err(MessageError::Length(length));
    }
    let header = match Header::decode(prefix) {
        Ok(header) => Some(header),
        Err(CodecError::UnknownType(_)) => None,
        Err(error) => return Err(MessageError::Header(error.to_string())),
    };
    let Some(envelope) = bytes.get(PREFIX..HEADER_SIZE + length) else { return Ok(None) };
    let message = header.zip(attributes(envelope)).map(|(header, attributes)| Message {
        kind: header.ty,
        seq: header.seq,
        peer: header.peer,
        attributes,
    });
    Ok(Some((message, HEADER_SIZE + length)))
}

fn attributes(envelope: &[u8]) -> Option<Attributes<'_>> {
    let mut attributes = Attributes::default();
    let mut rest = iter_attrs(envelope);
    while let Some(attribute) = rest.try_next().ok()? {
        let Some(id) = UbusAttr::from_u8(attribute.id) else { continue };
        match id {
            UbusAttr::Status => attributes.status = attribute.as_u32(),
            UbusAttr::ObjPath => attributes.path = attribute.as_str(),
            UbusAttr::ObjId => attributes.object = attribute.as_u32(),
            UbusAttr::Method => attributes.method = attribute.as_str(),
            UbusAttr::Target => attributes.target = attribute.as_u32(),
            UbusAttr::Active => attributes.active = Some(attribute.as_bool_int8()),
            UbusAttr::NoReply => attributes.no_reply = attribute.as_bool_int8(),
            UbusAttr::User => attributes.user = attribute.as_str(),
            UbusAttr::Data => attributes.data = Some(attribute.payload),
            UbusAttr::ObjType | UbusAttr::Signature | UbusAttr::Subscribers | UbusAttr::Group => {}
        }
    }
    Some(attributes)
}

/// Appends a message to `out`.
pub(super) fn write(out: &mut Vec<u8>, kind: MsgType, seq: u16, peer: u32, envelope: EnvBuilder) {
    out.extend_from_slice(&Header { version: 0, ty: kind, seq, peer }.encode());
    out.extend_from_slice(&envelope.finish());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoke() -> Vec<u8> {
        let mut envelope = EnvBuilder::new();
        envelope.push_u8(UbusAttr::NoReply, 1);
        envelope.push_u32(UbusAttr::ObjId, 9);
        envelope.push_str(UbusAttr::Method, "status");
        envelope.push_str(UbusAttr::User, "root");
        envelope.push_data(b"");
        let mut out = Vec::new();
        write(&mut out, MsgType::Invoke, 7, 42, envelope);
        out
    }

    #[test]
    fn a_message_comes_out_once_it_is_complete_and_leaves_what_follows() {
        let mut bytes = invoke();
        for cut in 0..bytes.len() {
            assert_eq!(next(&bytes[..cut]), Ok(None), "{cut}");
        }
        let length = bytes.len();
        bytes.extend(b"more");
        let (message, taken) = next(&bytes).unwrap().unwrap();
        assert_eq!(taken, length);
        let attributes = Attributes {
            object: Some(9),
            method: Some("status"),
            user: Some("root"),
            no_reply: true,
            data: Some(b""),
            ..Attributes::default()
        };
        assert_eq!(message, Some(Message { kind: MsgType::Invoke, seq: 7, peer: 42, attributes }));
    }

    #[test]
    fn what_is_not_understood_is_passed_over_and_what_is_no_ubus_ends_it() {
        let mut unknown = invoke();
        unknown[1] = 99;
        assert_eq!(next(&unknown), Ok(Some((None, unknown.len()))));
        let mut damaged = invoke();
        damaged[PREFIX + 3] = 1;
        assert_eq!(next(&damaged), Ok(Some((None, damaged.len()))), "an attribute shorter than its own header");
        let mut version = invoke();
        version[0] = 1;
        assert!(matches!(next(&version), Err(MessageError::Header(_))));
        let mut length = invoke();
        length[PREFIX - 3..PREFIX].copy_from_slice(&[0, 0, 3]);
        assert_eq!(next(&length), Err(MessageError::Length(3)));
        length[PREFIX - 3..PREFIX].copy_from_slice(&[0x10, 0, 1]);
        assert_eq!(next(&length), Err(MessageError::Length(MAX_MSG_LEN + 1)));
    }
}
