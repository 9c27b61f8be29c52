//! The file system behind the exports: objects by handle, and the system calls on them. Knows nothing of RPC.

pub(super) mod object;
pub(crate) mod subvolume;
mod support;
pub(super) mod sys;
pub(crate) mod trial;

pub(super) use object::{Name, Object, ProcFds};
pub use support::{HandleSupport, SupportError, handle_support};
