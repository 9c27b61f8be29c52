//! Acting as the caller: the file-system identity of one thread (credentials(7)).
//!
//! The C library's wrappers would change every thread of the process, so these are the raw calls. Only the
//! *file-system* ids change: the kernel then drops the file-system capabilities for any uid but 0 and takes them back
//! at 0, and everything else the thread may do stays.

#![allow(unsafe_code, reason = "per-thread identity needs raw system calls: no wrapper leaves the other threads alone")]

use std::hash::{Hash, Hasher};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::rpc::{Auth, MAX_GROUPS};

/// User and group "nobody": squashed root, and callers without a credential.
pub const NOBODY: u32 = 65534;
/// The id that means "none" in setfsuid(2), chown(2) and setgroups(2): no caller can be it.
pub const NO_ID: u32 = u32::MAX;

/// On architectures whose first system calls had 16-bit ids the 32-bit ones have other numbers.
mod number {
    #[cfg(not(any(target_arch = "arm", target_arch = "x86", target_arch = "sparc")))]
    pub(super) use libc::{SYS_setfsgid as SETFSGID, SYS_setfsuid as SETFSUID, SYS_setgroups as SETGROUPS};
    #[cfg(any(target_arch = "arm", target_arch = "x86", target_arch = "sparc"))]
    pub(super) use libc::{SYS_setfsgid32 as SETFSGID, SYS_setfsuid32 as SETFSUID, SYS_setgroups32 as SETGROUPS};
}

/// Who a request acts as on the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    groups: [u32; MAX_GROUPS],
    group_count: u8,
}

/// Hardly ever do two differ in nothing but groups: looking at those too would cost more than it saves.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.uid, self.gid).hash(state);
    }
}

impl Identity {
    /// Nobody.
    pub const NOBODY: Self = Self { uid: NOBODY, gid: NOBODY, groups: [0; MAX_GROUPS], group_count: 0 };

    /// The identity of a credential. With `squash_root`, uid 0 and group 0 become nobody.
    #[must_use]
    pub fn new(auth: &Auth, squash_root: bool) -> Self {
        let Auth::Sys(sys) = auth else { return Self::NOBODY };
        let squash = |id: u32| if id == NO_ID || (squash_root && id == 0) { NOBODY } else { id };
        let mut groups = [0; MAX_GROUPS];
        for (to, from) in groups.iter_mut().zip(sys.groups()) {
            *to = squash(*from);
        }
        let group_count = u8::try_from(sys.groups().len()).unwrap_or(0);
        Self { uid: squash(sys.uid), gid: squash(sys.gid), groups, group_count }
    }

    /// Supplementary groups.
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        &self.groups[..usize::from(self.group_count)]
    }

    /// Root with all capabilities over the export.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The identity that this thread has now. One per thread, never shared.
#[derive(Debug)]
pub struct Switcher {
    uid: u32,
    /// Group and supplementary groups as last set; `None` when not known for certain.
    groups_of: Option<Identity>,
    /// Ids belong to the thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Switcher {
    /// Prepares this thread to act for callers: its own umask of 0, and no right to the blocks that a file system
    /// reserves for root beyond what the caller's uid gives.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn for_this_thread() -> Result<Self, Errno> {
        // SAFETY: only CLONE_FS is unshared (umask, root, working directory), never the descriptor table that rustix warns about.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::umask(Mode::empty());
        drop_resource_override()?;
        let mut switcher = Self { uid: NO_ID, groups_of: None, _not_send: std::marker::PhantomData };
        switcher.be_root()?;
        Ok(switcher)
    }

    /// Acts as root, groups left as they are: needed to open handles.
    ///
    /// # Errors
    /// `EPERM` if the kernel did not switch.
    pub fn be_root(&mut self) -> Result<(), Errno> {
        if self.uid != 0 {
            self.set_uid(0)?;
        }
        Ok(())
    }

    /// Acts as `identity`.
    ///
    /// # Errors
    /// `EPERM` if the kernel did not switch; the thread is then root or unchanged, never another user.
    pub fn be(&mut self, identity: &Identity) -> Result<(), Errno> {
        if self.groups_of.as_ref() != Some(identity) {
            let same_groups =
                self.groups_of.as_ref().is_some_and(|now| now.gid == identity.gid && now.groups() == identity.groups());
            if !same_groups {
                self.groups_of = None;
                set_groups(identity.groups())?;
                set_id(number::SETFSGID, identity.gid)?;
            }
            self.groups_of = Some(*identity);
        }
        if self.uid != identity.uid {
            self.set_uid(identity.uid)?;
        }
        Ok(())
    }

    fn set_uid(&mut self, uid: u32) -> Result<(), Errno> {
        self.uid = NO_ID;
        set_id(number::SETFSUID, uid)?;
        self.uid = uid;
        Ok(())
    }
}

/// setfsuid and setfsgid report no error: they return the id that was in force, so a second call tells what is now.
fn set_id(call: libc::c_long, id: u32) -> Result<(), Errno> {
    // SAFETY: both calls take one integer and touch no memory.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, NO_ID)
    };
    // The kernel returns the id as a signed int: compare the low 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the id's 32 bits are wanted")]
    let now = now as u32;
    if now == id { Ok(()) } else { Err(Errno::PERM) }
}

fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the pointer and length are those of a live slice of 32-bit ids, which the kernel only reads.
    let result = unsafe { libc::syscall(number::SETGROUPS, groups.len(), groups.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Gives up CAP_SYS_RESOURCE for this thread: it survives setfsuid and would let every user fill the disk to the last
/// block. Root on a Pi keeps the reserve, because the file system grants it to uid 0 by number.
fn drop_resource_override() -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_RESOURCE: u32 = 24;
    let mut header = [VERSION_3, 0_u32];
    // Two sets of effective, permitted, inheritable.
    let mut sets = [0_u32; 6];
    // SAFETY: header and sets have the layout of struct __user_cap_header_struct and two struct __user_cap_data_struct
    // (capget(2)); pid 0 is this thread.
    unsafe {
        if libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) != 0 {
            return Err(last_error());
        }
        sets[0] &= !(1 << CAP_SYS_RESOURCE);
        if libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) != 0 {
            return Err(last_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs::rpc::decode_call;

    fn identity(uid: u32, gid: u32, groups: &[u32], squash: bool) -> Identity {
        let mut body = Vec::new();
        for word in [0, 0, uid, gid, u32::try_from(groups.len()).unwrap()] {
            crate::nfs::xdr::put_u32(&mut body, word);
        }
        groups.iter().for_each(|group| crate::nfs::xdr::put_u32(&mut body, *group));
        let mut call = Vec::new();
        for word in [1, 0, 2, 100_003, 3, 0, 1] {
            crate::nfs::xdr::put_u32(&mut call, word);
        }
        crate::nfs::xdr::put_opaque(&mut call, &body);
        crate::nfs::xdr::put_u64(&mut call, 0);
        Identity::new(&decode_call(&call).unwrap().auth, squash)
    }

    #[test]
    fn squashing_takes_uid_zero_gid_zero_and_the_impossible_id() {
        let squashed = identity(0, 0, &[0, 5], true);
        assert_eq!((squashed.uid, squashed.gid, squashed.groups()), (NOBODY, NOBODY, &[NOBODY, 5][..]));
        let kept = identity(0, 0, &[0, 5], false);
        assert_eq!((kept.uid, kept.gid, kept.groups()), (0, 0, &[0, 5][..]));
        assert_eq!(identity(NO_ID, NO_ID, &[], false).uid, NOBODY);
        assert_eq!(Identity::new(&Auth::None, false), Identity::NOBODY);
    }

    #[test]
    fn the_kernel_sees_the_switch_and_other_threads_do_not() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        std::thread::spawn(|| {
            let mut switcher = Switcher::for_this_thread().unwrap();
            // Beyond 2^31, yet none of the last 4095, whose return a 32-bit machine takes for an error.
            let big = identity(4_294_960_000, 4_294_960_001, &[7, 70_000], false);
            switcher.be(&big).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
            assert!(line("Uid:").ends_with("4294960000"), "{}", line("Uid:"));
            assert!(line("Gid:").ends_with("4294960001"), "{}", line("Gid:"));
            assert!(line("Groups:").contains("7 70000"), "{}", line("Groups:"));
            assert!(line("Umask:").ends_with("0000"));
            let whole = std::fs::read_to_string("/proc/self/status").unwrap();
            assert!(!whole.contains("4294960000"), "the rest of the process stays who it is");
            assert!(!whole.contains("Umask:\t0000"));
            switcher.be_root().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.lines().any(|l| l.starts_with("Uid:") && l.ends_with('0')));
        })
        .join()
        .unwrap();
    }
}
