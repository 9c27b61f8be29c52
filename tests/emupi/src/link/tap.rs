//! The only way to a tap interface is an ioctl.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

mod sys {
    // linux/if_tun.h: TUNSETIFF = _IOW('T', 202, int), TUNSETPERSIST = _IOW('T', 203, int); both pass more, or less, than an int.
    nix::ioctl_write_ptr_bad!(set_iff, nix::request_code_write!(b'T', 202, 4), nix::libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, nix::request_code_write!(b'T', 203, 4));
    // TUNSETOFFLOAD = _IOW('T', 208, unsigned int).
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
}

pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has 1 to 15 characters"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes exactly one ifreq, which outlives the call.
    unsafe { sys::set_iff(file.as_raw_fd(), &raw const request) }?;
    // SAFETY: TUNSETPERSIST takes its argument by value.
    unsafe { sys::set_persist(file.as_raw_fd(), 1) }?;
    // QEMU, which had the tap before, leaves checksums to the guest; here they must be done.
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { sys::set_offload(file.as_raw_fd(), 0) }?;
    Ok(file.into())
}
