//! Extended attributes: in the inode, in a block, in inodes of their own
//! (Linux Documentation/filesystems/ext4/attributes.rst).

use super::inode::{GOOD_OLD_SIZE, Inode, flags};
use super::{Ext4, Ext4Error, acl};
use crate::image::fields::{u16_at, u32_at};
use crate::storage::tree_writer::Xattr;

const MAGIC: u32 = 0xea02_0000;
/// Header of a block of attributes.
const BLOCK_HEADER: usize = 32;
/// An entry without its name.
const ENTRY: usize = 16;
/// Largest value that any system call sets (`XATTR_SIZE_MAX`).
const MAX_VALUE: usize = 65536;
/// Bound on the attributes of one file, several times what listxattr can return.
const MAX_TOTAL: usize = 1 << 20;

const INDEX_ACL_ACCESS: u8 = 2;
const INDEX_ACL_DEFAULT: u8 = 3;
const INDEX_SYSTEM: u8 = 7;

/// An entry of an attribute region; names and places are ranges checked against the region.
#[derive(Debug, PartialEq, Eq)]
struct Raw<'a> {
    index: u8,
    name: &'a [u8],
    value: Value<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Here(&'a [u8]),
    InInode { inode: u32, size: u32 },
}

/// Entries start at `first`; value offsets count from `base`.
fn parse(region: &[u8], first: usize, base: usize) -> Result<Vec<Raw<'_>>, &'static str> {
    let mut at = first;
    let mut out = Vec::new();
    // Four zero bytes end the list; so does the end of the region.
    while at + 4 <= region.len() && u32_at(region, at) != 0 {
        let name_length = usize::from(region[at]);
        let name = region.get(at + ENTRY..at + ENTRY + name_length).ok_or("attribute name past the end")?;
        if name.contains(&0) {
            return Err("NUL in an attribute's name");
        }
        let (inode, size) = (u32_at(region, at + 4), u32_at(region, at + 8));
        let value = if inode != 0 {
            Value::InInode { inode, size }
        } else {
            let start = base + usize::from(u16_at(region, at + 2));
            let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
            // An empty value's offset means nothing.
            let range = if size == 0 { 0..0 } else { start..end.ok_or("attribute value past the end")? };
            Value::Here(region.get(range).ok_or("attribute value past the end")?)
        };
        out.push(Raw { index: region[at + 1], name, value });
        at += (ENTRY + name_length).next_multiple_of(4);
    }
    Ok(out)
}

/// Content in the block map's place, and the rest of it.
pub(super) type InlineParts = (Vec<u8>, Vec<u8>);

impl Ext4<'_> {
    /// Every attribute as getxattr would show it to root.
    ///
    /// # Errors
    /// What reading met, or damage.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Ext4Error> {
        let mut out = Vec::new();
        let mut total = 0;
        self.each_xattr(inode, &mut |raw| {
            let prefix: &[u8] = match raw.index {
                1 => b"user.",
                INDEX_ACL_ACCESS => b"system.posix_acl_access",
                INDEX_ACL_DEFAULT => b"system.posix_acl_default",
                4 => b"trusted.",
                6 => b"security.",
                // Inline data, encryption contexts and other file systems' indexes: the kernel shows none of them.
                _ => return Ok(()),
            };
            let mut value = match raw.value {
                Value::Here(value) => value.to_vec(),
                Value::InInode { inode: holder, size } => self.value_in_inode(inode.number, holder, size)?,
            };
            if matches!(raw.index, INDEX_ACL_ACCESS | INDEX_ACL_DEFAULT) {
                value = acl::to_posix(&value).map_err(|what| Ext4Error::inode(inode.number, what))?;
            }
            total += value.len();
            if value.len() > MAX_VALUE || total > MAX_TOTAL {
                return Err(Ext4Error::inode(inode.number, "extended attributes larger than any system call can set"));
            }
            out.push(Xattr { name: [prefix, raw.name].concat(), value });
            Ok(())
        })?;
        Ok(out)
    }

    /// Content kept in the inode: the part in the block map's place and the part in the hidden attribute
    /// `system.data`. `None` if the content is in blocks.
    pub(super) fn inline_parts(&self, inode: &Inode) -> Result<Option<InlineParts>, Ext4Error> {
        if !inode.has(flags::INLINE_DATA) {
            return Ok(None);
        }
        let mut rest = Vec::new();
        self.each_xattr(inode, &mut |raw| {
            if raw.index == INDEX_SYSTEM && raw.name == b"data" {
                match raw.value {
                    Value::Here(value) => rest = value.to_vec(),
                    Value::InInode { .. } => {
                        return Err(Ext4Error::inode(inode.number, "inline data in another inode"));
                    }
                }
            }
            Ok(())
        })?;
        Ok(Some((inode.i_block().to_vec(), rest)))
    }

    fn each_xattr(
        &self,
        inode: &Inode,
        each: &mut dyn FnMut(Raw<'_>) -> Result<(), Ext4Error>,
    ) -> Result<(), Ext4Error> {
        let bad = |what| Ext4Error::inode(inode.number, what);
        let region = inode.raw.get(GOOD_OLD_SIZE + inode.extra_size..).unwrap_or_default();
        if inode.raw.len() > GOOD_OLD_SIZE && u32_at(region, 0) == MAGIC {
            for raw in parse(region, 4, 4).map_err(bad)? {
                each(raw)?;
            }
        }
        if inode.xattr_block != 0 {
            self.check_blocks(inode.number, inode.xattr_block, 1)?;
            let block = self.read_block(inode.xattr_block)?;
            if u32_at(&block, 0) != MAGIC || u32_at(&block, 8) != 1 {
                return Err(bad("attribute block without its magic number"));
            }
            for raw in parse(&block, BLOCK_HEADER, 0).map_err(bad)? {
                each(raw)?;
            }
        }
        Ok(())
    }

    /// A value that is the content of an inode made for it.
    fn value_in_inode(&self, owner: u32, holder: u32, size: u32) -> Result<Vec<u8>, Ext4Error> {
        let inode = self.inode(holder)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if !inode.has(flags::EA_INODE) || inode.size != size as u64 || size > MAX_VALUE {
            return Err(Ext4Error::inode(owner, "attribute value in an inode that is not meant for one"));
        }
        self.content(&inode, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u8, name: &[u8], offset: u16, inode: u32, size: u32) -> Vec<u8> {
        let mut data = vec![u8::try_from(name.len()).unwrap(), index];
        data.extend(offset.to_le_bytes());
        data.extend(inode.to_le_bytes());
        data.extend(size.to_le_bytes());
        data.extend([0; 4]);
        data.extend(name);
        data.resize(data.len().next_multiple_of(4), 0);
        data
    }

    #[test]
    fn names_and_values_are_found_from_the_right_base() {
        let mut region = vec![0; 4];
        region.extend(entry(1, b"colour", 60, 0, 3));
        region.extend(entry(6, b"big", 0, 77, 70000));
        region.resize(64, 0);
        region.extend(b"red");
        let parsed = parse(&region, 4, 4).unwrap();
        assert_eq!(parsed[0], Raw { index: 1, name: b"colour", value: Value::Here(b"red") });
        assert_eq!(parsed[1].value, Value::InInode { inode: 77, size: 70000 });
    }

    #[test]
    fn nothing_outside_the_region_is_read() {
        for data in [entry(1, b"a", 65535, 0, 1), entry(1, b"a", 0, 0, u32::MAX), entry(1, &[b'a'; 40], 0, 0, 0)] {
            assert!(parse(&data[..data.len().min(24)], 0, 0).is_err(), "{data:?}");
        }
        assert_eq!(parse(&[1, 1, 0], 0, 0).unwrap().len(), 0);
        assert!(parse(&[1, 1, 0, 0], 0, 0).is_err());
    }
}
