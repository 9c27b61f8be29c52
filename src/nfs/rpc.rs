//! ONC RPC version 2 (RFC 5531): record marking, call headers, AUTH_SYS credentials, reply headers.

use super::xdr::{self, Decoder, Malformed};

/// Longest credential or verifier body (RFC 5531 §8.2).
const MAX_AUTH: usize = 400;
/// Most groups of an AUTH_SYS credential (RFC 5531, appendix A).
pub const MAX_GROUPS: usize = 16;
/// Longest machine name of an AUTH_SYS credential.
const MAX_MACHINE_NAME: usize = 255;
const RPC_VERSION: u32 = 2;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// The mark before each fragment on a stream (RFC 5531 §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMark {
    /// No fragment of this record follows.
    pub last: bool,
    /// Bytes in this fragment, 31 bits.
    pub length: u32,
}

impl RecordMark {
    /// Reads the mark of four bytes.
    #[must_use]
    pub const fn decode(bytes: [u8; 4]) -> Self {
        let word = u32::from_be_bytes(bytes);
        Self { last: word >> 31 == 1, length: word & 0x7fff_ffff }
    }
}

/// Who the caller says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// AUTH_NONE: nobody in particular.
    None,
    /// AUTH_SYS (RFC 5531, appendix A).
    Sys(AuthSys),
}

/// The numbers of an AUTH_SYS credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSys {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    groups: [u32; MAX_GROUPS],
    group_count: usize,
}

impl AuthSys {
    /// Further groups, at most [`MAX_GROUPS`].
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        &self.groups[..self.group_count]
    }
}

/// A call header, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Transaction id, chosen by the client.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Credential.
    pub auth: Auth,
    /// The procedure's arguments, not decoded.
    pub args: &'a [u8],
}

/// Why a message is no call that can be dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No call header: the connection is out of step, or the sender speaks something else. Nothing can be answered.
    NotACall,
    /// The header is fine as far as the transaction id: answer [`Unusable`]'s second field and go on.
    Answer(u32, Refusal),
}

/// A reply that is not a result (RFC 5531 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RPC_MISMATCH: only RPC version 2 is spoken.
    RpcVersion,
    /// AUTH_ERROR with AUTH_BADCRED.
    BadCredential,
    /// AUTH_ERROR with AUTH_TOOWEAK: a flavour that is not spoken here.
    UnknownFlavor,
    /// PROG_UNAVAIL.
    NoProgram,
    /// PROG_MISMATCH with the lowest and highest version spoken.
    NoVersion(u32, u32),
    /// PROC_UNAVAIL.
    NoProcedure,
    /// GARBAGE_ARGS.
    GarbageArgs,
    /// SYSTEM_ERR.
    SystemError,
}

/// Reads a call header.
///
/// # Errors
/// [`Unusable`] says what to answer, if anything.
pub fn decode_call(message: &[u8]) -> Result<Call<'_>, Unusable> {
    let mut d = Decoder::new(message);
    let (Ok(xid), Ok(0)) = (d.u32(), d.u32()) else { return Err(Unusable::NotACall) };
    let answer = |refusal| Unusable::Answer(xid, refusal);
    match d.u32() {
        Ok(RPC_VERSION) => {}
        Ok(_) => return Err(answer(Refusal::RpcVersion)),
        Err(Malformed) => return Err(Unusable::NotACall),
    }
    let mut header = || -> Result<_, Malformed> {
        let numbers = (d.u32()?, d.u32()?, d.u32()?);
        let credential = (d.u32()?, d.opaque(MAX_AUTH)?);
        let _verifier = (d.u32()?, d.opaque(MAX_AUTH)?);
        Ok((numbers, credential))
    };
    let ((program, version, procedure), (flavor, body)) = header().map_err(|_| answer(Refusal::GarbageArgs))?;
    let auth = match flavor {
        AUTH_NONE => Auth::None,
        AUTH_SYS => Auth::Sys(decode_auth_sys(body).map_err(|_| answer(Refusal::BadCredential))?),
        _ => return Err(answer(Refusal::UnknownFlavor)),
    };
    Ok(Call { xid, program, version, procedure, auth, args: d.rest() })
}

fn decode_auth_sys(body: &[u8]) -> Result<AuthSys, Malformed> {
    let mut d = Decoder::new(body);
    let _stamp = d.u32()?;
    let _machine = d.opaque(MAX_MACHINE_NAME)?;
    let (uid, gid) = (d.u32()?, d.u32()?);
    let group_count = usize::try_from(d.u32()?).map_err(|_| Malformed)?;
    let mut groups = [0; MAX_GROUPS];
    for group in groups.get_mut(..group_count).ok_or(Malformed)? {
        *group = d.u32()?;
    }
    Ok(AuthSys { uid, gid, groups, group_count })
}

/// Appends the header of a reply whose result follows: accepted, no verifier, SUCCESS.
pub fn put_success(out: &mut Vec<u8>, xid: u32) {
    put_accepted(out, xid, 0);
}

/// Appends a whole reply that refuses the call.
pub fn put_refusal(out: &mut Vec<u8>, xid: u32, refusal: Refusal) {
    let denied = |out: &mut Vec<u8>, words: &[u32]| {
        for word in [xid, 1, 1].into_iter().chain(words.iter().copied()) {
            xdr::put_u32(out, word);
        }
    };
    match refusal {
        Refusal::RpcVersion => denied(out, &[0, RPC_VERSION, RPC_VERSION]),
        Refusal::BadCredential => denied(out, &[1, 1]),
        Refusal::UnknownFlavor => denied(out, &[1, 5]),
        Refusal::NoProgram => put_accepted(out, xid, 1),
        Refusal::NoVersion(low, high) => {
            put_accepted(out, xid, 2);
            xdr::put_u32(out, low);
            xdr::put_u32(out, high);
        }
        Refusal::NoProcedure => put_accepted(out, xid, 3),
        Refusal::GarbageArgs => put_accepted(out, xid, 4),
        Refusal::SystemError => put_accepted(out, xid, 5),
    }
}

fn put_accepted(out: &mut Vec<u8>, xid: u32, status: u32) {
    // Message type REPLY, MSG_ACCEPTED, verifier AUTH_NONE of no bytes, accept_stat.
    for word in [xid, 1, 0, AUTH_NONE, 0, status] {
        xdr::put_u32(out, word);
    }
}

#[cfg(test)]
mod tests {
    use nfs3_types::rpc;
    use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};

    use super::*;

    fn call_of(cred: rpc::opaque_auth<'static>) -> Vec<u8> {
        let message = rpc::rpc_msg {
            xid: 0x1234,
            body: rpc::msg_body::CALL(rpc::call_body {
                rpcvers: 2,
                prog: 100_003,
                vers: 3,
                proc: 1,
                cred,
                verf: rpc::opaque_auth::default(),
            }),
        };
        let mut out = Vec::new();
        message.pack(&mut out).unwrap();
        out
    }

    fn sys(gids: Vec<u32>) -> rpc::opaque_auth<'static> {
        rpc::opaque_auth::auth_unix(&rpc::auth_unix {
            stamp: 9,
            machinename: Opaque::owned(b"pi".to_vec()),
            uid: 1000,
            gid: 100,
            gids,
        })
    }

    #[test]
    fn calls_of_another_encoder_are_read() {
        let mut bytes = call_of(sys(vec![4, 24]));
        bytes.extend_from_slice(b"args");
        let call = decode_call(&bytes).unwrap();
        assert_eq!((call.xid, call.program, call.version, call.procedure), (0x1234, 100_003, 3, 1));
        let Auth::Sys(auth) = call.auth else { panic!("{call:?}") };
        assert_eq!((auth.uid, auth.gid, auth.groups(), call.args), (1000, 100, &[4, 24][..], &b"args"[..]));
        let none = call_of(rpc::opaque_auth::default());
        assert_eq!(decode_call(&none).unwrap().auth, Auth::None);
    }

    #[test]
    fn a_seventeenth_group_or_a_huge_count_is_a_bad_credential() {
        let bytes = call_of(sys(vec![1; 17]));
        assert_eq!(decode_call(&bytes), Err(Unusable::Answer(0x1234, Refusal::BadCredential)));
        let mut bytes = call_of(sys(vec![7]));
        let at = bytes.len() - 16;
        assert_eq!(bytes[at..at + 4], 1_u32.to_be_bytes(), "the group count");
        xdr::patch_u32(&mut bytes, at, u32::MAX);
        assert_eq!(decode_call(&bytes), Err(Unusable::Answer(0x1234, Refusal::BadCredential)));
    }

    #[test]
    fn every_refusal_is_understood_by_another_decoder() {
        for refusal in [
            Refusal::RpcVersion,
            Refusal::BadCredential,
            Refusal::UnknownFlavor,
            Refusal::NoProgram,
            Refusal::NoVersion(1, 3),
            Refusal::NoProcedure,
            Refusal::GarbageArgs,
            Refusal::SystemError,
        ] {
            let mut out = Vec::new();
            put_refusal(&mut out, 77, refusal);
            let (message, used) = rpc::rpc_msg::unpack(&mut out.as_slice()).unwrap();
            assert_eq!((message.xid, used), (77, out.len()), "{refusal:?}");
            let rpc::msg_body::REPLY(reply) = message.body else { panic!("{refusal:?}") };
            let seen = format!("{reply:?}");
            let wanted = match refusal {
                Refusal::RpcVersion => "RPC_MISMATCH",
                Refusal::BadCredential => "AUTH_BADCRED",
                Refusal::UnknownFlavor => "AUTH_TOOWEAK",
                Refusal::NoProgram => "PROG_UNAVAIL",
                Refusal::NoVersion(..) => "PROG_MISMATCH",
                Refusal::NoProcedure => "PROC_UNAVAIL",
                Refusal::GarbageArgs => "GARBAGE_ARGS",
                Refusal::SystemError => "SYSTEM_ERR",
            };
            assert!(seen.contains(wanted), "{refusal:?} became {seen}");
        }
    }

    #[test]
    fn what_is_not_a_call_gets_no_answer() {
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 1, 0, 0, 0, 1]] {
            assert_eq!(decode_call(bytes), Err(Unusable::NotACall));
        }
    }
}
