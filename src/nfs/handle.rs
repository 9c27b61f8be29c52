//! File handles on the wire: the kernel's own handle, tied to an export and sealed with a keyed checksum.
//!
//! ```text
//! 0      version 1            1      flags, zero
//! 2..4   export id            4..8   tag of the file system
//! 8      kernel handle type   9      kernel handle length
//! 10..   kernel handle        last 8 SipHash-2-4 of all before
//! ```
//! The kernel's handle holds the inode's generation, so a handle dies with its object even though ext4 reuses inode
//! numbers at once; it needs no table and survives restarts of this server. The checksum keeps a client of one export
//! from naming inodes of the rest of the disk.

use std::fmt;
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher24;

use super::proto::MAX_HANDLE;

const VERSION: u8 = 1;
const PREFIX: usize = 10;
const CHECKSUM: usize = 8;
/// What a handle has besides the kernel's.
pub(super) const PREFIX_AND_CHECKSUM: usize = PREFIX + CHECKSUM;
/// `OVL_FILEID_V1`, the type of overlayfs' handles.
const OVERLAY: u8 = 0xf8;
/// Longest kernel handle that fits.
pub const MAX_KERNEL_HANDLE: usize = MAX_HANDLE - PREFIX_AND_CHECKSUM;

/// What `name_to_handle_at` returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelHandle {
    /// The file system's handle type.
    pub kind: u8,
    length: u8,
    bytes: [u8; MAX_KERNEL_HANDLE],
}

impl KernelHandle {
    /// A kernel handle of at most [`MAX_KERNEL_HANDLE`] bytes.
    #[must_use]
    pub fn new(kind: u8, handle: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_KERNEL_HANDLE];
        bytes.get_mut(..handle.len())?.copy_from_slice(handle);
        Some(Self { kind, length: u8::try_from(handle.len()).ok()?, bytes })
    }

    /// The file system's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether the handle is of this inode; `None` for layouts that are not known. Lets a handle and attributes that
    /// were got one after the other be recognised as those of one object.
    #[must_use]
    pub fn is_inode(&self, ino: u64) -> Option<bool> {
        let first32 = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from(u32::from_ne_bytes(*b)));
        let first64 = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from_ne_bytes(*b));
        match (self.kind, self.bytes().len()) {
            // FILEID_INO32_GEN (ext4, f2fs).
            (0x01, 8) => Some(first32(self.bytes()) == Some(ino)),
            // FILEID_BTRFS_WITHOUT_PARENT, and xfs' form with 64-bit inode numbers.
            (0x4d, 20) | (0x81, 12) => Some(first64(self.bytes()) == Some(ino)),
            // tmpfs: generation, then the inode number, low half first.
            (0x01, 12) => {
                let (low, high) = (first32(&self.bytes()[4..]), first32(&self.bytes()[8..]));
                Some(low.zip(high).map(|(low, high)| low | high << 32) == Some(ino))
            }
            // overlayfs over ext4 or f2fs: their handle behind what tells the layers apart. Numbers are those of the layers.
            (OVERLAY, 32) if self.bytes()[7] == 0x01 => Some(first32(&self.bytes()[24..]) == Some(ino)),
            _ => None,
        }
    }

    /// Whether it is of an object of an overlay that is, or was once, in the lower layer (`struct ovl_fb` of the kernel's
    /// fs/overlayfs/overlayfs.h, `OVL_FH_FLAG_PATH_UPPER`).
    #[must_use]
    pub fn is_of_lower_layer(&self) -> bool {
        self.kind == OVERLAY && self.bytes().get(6).is_some_and(|flags| flags & 0x04 == 0)
    }

    /// What an object of the lower layer is called in the overlay's index: `struct ovl_fb`, whose third byte is its length, in
    /// hexadecimal digits (`ovl_get_index_name_fh` of fs/overlayfs/namei.c).
    #[must_use]
    pub(super) fn index_name(&self) -> Option<String> {
        let fb = self.bytes().get(3..).filter(|_| self.is_of_lower_layer())?;
        let fb = fb.get(..usize::from(*fb.get(2)?))?;
        Some(fb.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for KernelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelHandle({:#x}, {:02x?})", self.kind, self.bytes())
    }
}

/// A sealed handle, ready for the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileHandle {
    length: u8,
    bytes: [u8; MAX_HANDLE],
}

/// The checksum is a hash already.
impl Hash for FileHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.checksum());
    }
}

impl FileHandle {
    /// The handle with these bytes; `None` if they are too many, or too few for a checksum.
    #[must_use]
    pub(super) fn from_bytes(handle: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_HANDLE];
        bytes.get_mut(..handle.len())?.copy_from_slice(handle);
        (handle.len() >= CHECKSUM).then_some(Self { length: u8::try_from(handle.len()).ok()?, bytes })
    }

    /// [`KernelHandle::is_of_lower_layer`] of the kernel's handle inside.
    #[must_use]
    pub(super) fn is_of_lower_layer(&self) -> bool {
        self.bytes[8] == OVERLAY && self.bytes[PREFIX + 6] & 0x04 == 0
    }

    /// The checksum at its end.
    #[must_use]
    pub(super) fn checksum(&self) -> u64 {
        self.bytes().last_chunk().map_or(0, |sum| u64::from_be_bytes(*sum))
    }

    /// The opaque bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({:02x?})", self.bytes())
    }
}

/// What a genuine handle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The export it was issued for.
    pub export: u16,
    /// The file system it was issued on.
    pub tag: u32,
    /// The object.
    pub kernel: KernelHandle,
    /// The handle itself.
    pub wire: FileHandle,
}

/// The bytes were not issued with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a file handle of this server")]
pub struct NotOurs;

/// The secret that seals handles. Handles live as long as it does.
#[derive(Clone)]
pub struct HandleKey([u8; 16]);

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(…)")
    }
}

impl HandleKey {
    /// A key of 128 random bits.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// The keyed hash of `bytes`.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Seals a handle.
    #[must_use]
    pub fn seal(&self, export: u16, tag: u32, kernel: &KernelHandle) -> FileHandle {
        let mut bytes = [0; MAX_HANDLE];
        let [export_high, export_low] = export.to_be_bytes();
        let [t0, t1, t2, t3] = tag.to_be_bytes();
        bytes[..PREFIX].copy_from_slice(&[
            VERSION,
            0,
            export_high,
            export_low,
            t0,
            t1,
            t2,
            t3,
            kernel.kind,
            kernel.length,
        ]);
        let end = PREFIX + kernel.bytes().len();
        bytes[PREFIX..end].copy_from_slice(kernel.bytes());
        let sum = self.hash(&bytes[..end]);
        bytes[end..end + CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        // At most 64, so the conversion holds.
        FileHandle { length: u8::try_from(end + CHECKSUM).unwrap_or(u8::MAX), bytes }
    }

    /// Opens a handle that came from the wire.
    ///
    /// # Errors
    /// [`NotOurs`] for anything that [`HandleKey::seal`] did not make with this key.
    pub fn open(&self, wire: &[u8]) -> Result<Opened, NotOurs> {
        let (body, sum) = wire.split_last_chunk::<CHECKSUM>().ok_or(NotOurs)?;
        let (prefix, kernel) = body.split_first_chunk::<PREFIX>().ok_or(NotOurs)?;
        if self.hash(body) != u64::from_be_bytes(*sum) {
            return Err(NotOurs);
        }
        let [VERSION, 0, e0, e1, t0, t1, t2, t3, kind, length] = *prefix else { return Err(NotOurs) };
        if usize::from(length) != kernel.len() || wire.len() > MAX_HANDLE {
            return Err(NotOurs);
        }
        let mut bytes = [0; MAX_HANDLE];
        bytes[..wire.len()].copy_from_slice(wire);
        Ok(Opened {
            export: u16::from_be_bytes([e0, e1]),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            kernel: KernelHandle::new(kind, kernel).ok_or(NotOurs)?,
            wire: FileHandle { length: u8::try_from(wire.len()).map_err(|_| NotOurs)?, bytes },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_an_overlay_show_layer_and_inode() {
        // Of overlayfs over ext4 (Linux 6.18): inode 32389, from the lower layer; and as one of the upper layer is.
        let mut bytes = [0; 32];
        bytes[3..8].copy_from_slice(&[0, 0xfb, 0x1d, 0, 1]);
        bytes[24..28].copy_from_slice(&32389_u32.to_ne_bytes());
        let lower = KernelHandle::new(0xf8, &bytes).unwrap();
        assert_eq!((lower.is_inode(32389), lower.is_inode(1)), (Some(true), Some(false)));
        assert_eq!(lower.index_name(), Some(format!("00fb1d0001{}857e0000{}", "00".repeat(16), "00".repeat(4))));
        bytes[6] = 0x04;
        let upper = KernelHandle::new(0xf8, &bytes).unwrap();
        let sealed = |handle| HandleKey::new([1; 16]).seal(1, 2, handle).is_of_lower_layer();
        assert_eq!((lower.is_of_lower_layer(), upper.is_of_lower_layer()), (true, false));
        assert_eq!((sealed(&lower), sealed(&upper)), (true, false));
        assert_eq!(upper.index_name(), None);
        let ext4 = KernelHandle::new(1, &[0; 8]).unwrap();
        assert!(!ext4.is_of_lower_layer() && !sealed(&ext4));
    }

    #[test]
    fn the_kernels_handles_show_their_inode() {
        use std::os::fd::AsFd;
        for dir in ["/dev/shm", "/tmp", "/"] {
            let Ok(fd) = rustix::fs::open(dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()) else { continue };
            let ino = rustix::fs::fstat(&fd).unwrap().st_ino;
            let Ok(handle) = crate::nfs::fs::sys::name_to_handle(fd.as_fd(), c"") else { continue };
            assert_ne!(handle.is_inode(ino), Some(false), "{dir}: {handle:?}");
            if handle.is_inode(ino).is_some() {
                assert_eq!(handle.is_inode(ino + 1), Some(false));
            }
        }
    }

    #[test]
    fn a_sealed_handle_opens_and_every_bent_bit_is_refused() {
        let key = HandleKey::new(*b"0123456789abcdef");
        for length in [0, 8, 12, 20, 36, MAX_KERNEL_HANDLE] {
            let kernel = KernelHandle::new(0x81, &vec![0xa5; length]).unwrap();
            let sealed = key.seal(300, 0xdead_beef, &kernel);
            assert_eq!(sealed.bytes().len(), 18 + length);
            let opened = key.open(sealed.bytes()).unwrap();
            assert_eq!((opened.export, opened.tag, opened.kernel, opened.wire), (300, 0xdead_beef, kernel, sealed));
            for bit in 0..sealed.bytes().len() * 8 {
                let mut bent = sealed.bytes().to_vec();
                bent[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open(&bent), Err(NotOurs), "bit {bit}");
            }
            for end in 0..sealed.bytes().len() {
                assert_eq!(key.open(&sealed.bytes()[..end]), Err(NotOurs));
            }
            assert_eq!(HandleKey::new([1; 16]).open(sealed.bytes()), Err(NotOurs), "another key");
        }
        assert_eq!(KernelHandle::new(1, &[0; MAX_KERNEL_HANDLE + 1]), None);
    }
}
