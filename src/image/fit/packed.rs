//! What kernels and initramfs are packed with, unpacked as a stream of bounded length and memory.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use crate::image::unpack::{memory_limit, zstd_window_log};

/// Nothing a Pi boots is longer than this once it is unpacked.
pub(super) const MAX_UNPACKED: u64 = 512 << 20;
/// mkinitramfs uses xz -8 at most (33 MiB) and zstd -19 (8 MiB). On a small router it is less, as for images.
const XZ_MEMORY: u64 = 40 << 20;

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
        self.unpack_within(packed, memory_limit())
    }

    /// The same with at most some `limit` bytes of memory.
    fn unpack_within<'a>(self, packed: impl BufRead + 'a, limit: u64) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(packed).take(MAX_UNPACKED)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY.min(limit), 0).map_err(io::Error::from)?;
                Box::new(XzDecoder::new_stream(packed, stream).take(MAX_UNPACKED))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(zstd_window_log(limit))?;
                Box::new(decoder.single_frame().take(MAX_UNPACKED))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_memory_is_taken_than_can_be_spared() {
        let content = vec![7; 3 << 20];
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(content.as_slice(), 6).read_to_end(&mut xz).unwrap();
        // A stream does not know its length beforehand, and has a window.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(21).unwrap();
        io::Write::write_all(&mut encoder, &content).unwrap();
        let zstd = encoder.finish().unwrap();
        for (packing, packed) in [(Packing::Xz, xz), (Packing::Zstd, zstd)] {
            let unpack = |limit| {
                let mut unpacked = Vec::new();
                packing.unpack_within(packed.as_slice(), limit)?.read_to_end(&mut unpacked).map(|_| unpacked)
            };
            assert_eq!(unpack(16 << 20).unwrap(), content, "{packing:?}");
            assert!(unpack(2 << 20).is_err(), "{packing:?}");
        }
    }
}
