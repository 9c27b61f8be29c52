//! What kernels and initramfs are packed with, unpacked as a stream of bounded length and memory.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

/// Nothing a Pi boots is longer than this once it is unpacked.
pub(super) const MAX_UNPACKED: u64 = 512 << 20;
/// mkinitramfs uses xz -8 at most (33 MiB) and zstd -19 (8 MiB).
const XZ_MEMORY: u64 = 40 << 20;
const ZSTD_WINDOW_LOG: u32 = 24;

/// The packings that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// By the first bytes of the data.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        [(Self::Gzip, &b"\x1f\x8b\x08"[..]), (Self::Xz, b"\xfd7zXZ\0"), (Self::Zstd, b"\x28\xb5\x2f\xfd")]
            .into_iter()
            .find_map(|(packing, magic)| head.starts_with(magic).then_some(packing))
    }

    /// What is packed, up to [`MAX_UNPACKED`]; what follows it is not read.
    pub(super) fn unpack<'a>(self, packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(packed).take(MAX_UNPACKED)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::from)?;
                Box::new(XzDecoder::new_stream(packed, stream).take(MAX_UNPACKED))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder.single_frame().take(MAX_UNPACKED))
            }
        })
    }
}
