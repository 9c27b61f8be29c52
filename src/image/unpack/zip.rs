//! zip archives, read as they come, from their local headers (PKWARE's APPNOTE.TXT, section 4.3): the one entry that is a
//! disk image by its content is what comes out, and everything beside it is passed over.

mod header;

use flate2::Crc;

use super::inflate::Inflate;
use super::{Decode, DecodeError, Format, HEAD, Recognised, Step, recognise};
use crate::image::fields::{u16_at, u32_at};
use header::{DESCRIPTOR, Entry, LOCAL, Method};

/// Passed over at once.
const SCRAP: usize = 16 * 1024;
const CHECKSUM: DecodeError = DecodeError::Damaged("the zip's checksum does not fit its content");

pub(super) struct Zip {
    state: State,
    /// Bytes of a record that has not come whole, up to `wanted`; behind it some that were read too far.
    held: Vec<u8>,
    wanted: usize,
    inflate: Inflate,
    /// Name of the image that was found, and of an entry that is packed itself.
    image: Option<String>,
    packed: Option<String>,
    scrap: Vec<u8>,
}

enum State {
    /// The four bytes that say what follows.
    Signature,
    LocalHeader,
    LocalNames,
    Content(Content),
    Descriptor,
    /// An entry's record in the central directory, of no interest by then.
    CentralHeader,
    /// Length of the record at the end of a zip64 directory.
    Zip64End,
    /// The record at the archive's end.
    End,
    /// Bytes nobody needs.
    Skip(u64),
    /// Everything has been seen.
    Done,
}

struct Content {
    entry: Entry,
    /// What is left of a stored entry.
    left: u64,
    crc: Crc,
    head: Head,
}

/// The first bytes, until there are enough of them to tell an image from something else.
enum Head {
    Unknown(Vec<u8>),
    /// The image; so many bytes of its head have been given.
    Image(Vec<u8>, usize),
    Other,
}

impl Zip {
    pub(super) fn new() -> Self {
        Self {
            state: State::Signature,
            held: Vec::new(),
            wanted: 4,
            inflate: Inflate::new(),
            image: None,
            packed: None,
            scrap: vec![0; SCRAP],
        }
    }

    fn want(&mut self, state: State, bytes: usize) {
        (self.state, self.wanted) = (state, bytes);
    }

    /// Drops what was used of `held`, then passes over `bytes`.
    fn skip(&mut self, used: usize, bytes: u64) {
        self.held.drain(..used.min(self.held.len()));
        let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.held.len());
        self.held.drain(..here);
        self.want(State::Skip(bytes - here as u64), 0);
    }

    /// A record, or a part of it, has come whole.
    fn record(&mut self, state: State) -> Result<(), DecodeError> {
        match state {
            State::Signature => {
                let signature = u32_at(&self.held, 0);
                self.held.drain(..4.min(self.held.len()));
                match signature {
                    0x0403_4b50 => self.want(State::LocalHeader, LOCAL),
                    0x0201_4b50 => self.want(State::CentralHeader, 42),
                    0x0606_4b50 => self.want(State::Zip64End, 8),
                    0x0706_4b50 => self.skip(0, 16),
                    // Some writers put one behind a directory.
                    0x0807_4b50 => self.skip(0, 12),
                    0x0605_4b50 => self.want(State::End, 18),
                    _ => return Err(DecodeError::Damaged("a record of the zip is not where it should be")),
                }
            }
            State::LocalHeader => self.want(State::LocalNames, LOCAL + header::variable_part(&self.held)),
            State::LocalNames => {
                let entry = header::entry(&self.held)?;
                self.held.clear();
                self.inflate.reset();
                let left = if entry.method == Method::Stored { entry.packed } else { 0 };
                let content = Content { entry, left, crc: Crc::new(), head: Head::Unknown(Vec::new()) };
                self.want(State::Content(content), 0);
            }
            State::Descriptor => {
                let (packed, unpacked) = (self.inflate.packed(), self.inflate.unpacked());
                let length = header::descriptor(&self.held, self.inflate.crc(), packed, unpacked).ok_or(CHECKSUM)?;
                self.held.drain(..length.min(self.held.len()));
                self.want(State::Signature, 4);
            }
            State::CentralHeader => {
                let lengths = [24, 26, 28].map(|at| u64::from(u16_at(&self.held, at)));
                self.skip(42, lengths.iter().sum());
            }
            State::Zip64End => {
                let length = u64::from(u32_at(&self.held, 0)) | u64::from(u32_at(&self.held, 4)) << 32;
                self.skip(8, length);
            }
            State::End => match (&self.image, &self.packed) {
                (Some(_), _) => self.state = State::Done,
                (None, Some(name)) => {
                    let what = format!("{name} in the zip is itself packed: unpack the zip and import that");
                    return Err(DecodeError::Archive(what));
                }
                (None, None) => {
                    let what = "the zip holds no disk image: unpack it and see what is in it";
                    return Err(DecodeError::Archive(what.to_owned()));
                }
            },
            State::Content(_) | State::Skip(_) | State::Done => self.state = state,
        }
        Ok(())
    }

    /// Goes on with an entry's content. Answers what was taken and given, and whether anything happened.
    fn content(&mut self, mut content: Content, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), DecodeError> {
        if let Head::Image(head, given) = &mut content.head
            && *given < head.len()
        {
            let rest = head.get(*given..).unwrap_or_default();
            let produced = rest.len().min(output.len());
            output.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            *given += produced;
            self.state = State::Content(content);
            return Ok((Step { consumed: 0, produced, end: false }, true));
        }
        let image = matches!(content.head, Head::Image(..));
        let to = match &content.head {
            Head::Image(..) => output,
            Head::Unknown(head) => self.scrap.get_mut(..HEAD.saturating_sub(head.len())).unwrap_or_default(),
            Head::Other => &mut self.scrap,
        };
        let step = match content.entry.method {
            Method::Deflated => self.inflate.step(input, to)?,
            Method::Stored => stored(&mut content, input, to),
        };
        if let Head::Unknown(head) = &mut content.head {
            head.extend(self.scrap.iter().take(step.produced));
            if head.len() >= HEAD || step.end {
                let head = std::mem::take(head);
                content.head = self.look(&content.entry, head)?;
            }
        }
        let pending = matches!(&content.head, Head::Image(head, given) if *given < head.len());
        let happened = step.consumed > 0 || step.produced > 0 || step.end;
        let produced = if image { step.produced } else { 0 };
        if step.end && !pending {
            self.ended(&content)?;
        } else {
            self.state = State::Content(content);
        }
        Ok((Step { consumed: step.consumed, produced, end: false }, happened))
    }

    /// Decides by its first bytes what an entry is.
    fn look(&mut self, entry: &Entry, head: Vec<u8>) -> Result<Head, DecodeError> {
        match recognise(&head) {
            Recognised::Known(Format::Raw) => {
                if let Some(other) = &self.image {
                    let name = &entry.name;
                    let what = format!(
                        "the zip holds several disk images ({other}, {name}): unpack it and import one of them"
                    );
                    return Err(DecodeError::Archive(what));
                }
                self.image = Some(entry.name.clone());
                Ok(Head::Image(head, 0))
            }
            Recognised::Nothing => Ok(Head::Other),
            Recognised::Known(_) | Recognised::Tar | Recognised::Unsupported(_) => {
                self.packed.get_or_insert_with(|| entry.name.clone());
                Ok(Head::Other)
            }
        }
    }

    /// Checks an entry whose content has come whole.
    fn ended(&mut self, content: &Content) -> Result<(), DecodeError> {
        let entry = &content.entry;
        let (crc, packed, unpacked) = match entry.method {
            Method::Deflated if entry.descriptor => {
                self.want(State::Descriptor, DESCRIPTOR);
                return Ok(());
            }
            Method::Deflated => (self.inflate.crc(), self.inflate.packed(), self.inflate.unpacked()),
            Method::Stored => (content.crc.sum(), entry.packed, entry.packed),
        };
        // What a descriptor is to say is not in the header; only directories are stored with one.
        if !entry.descriptor && (crc, packed, unpacked) != (entry.crc, entry.packed, entry.unpacked) {
            return Err(CHECKSUM);
        }
        self.want(State::Signature, 4);
        Ok(())
    }
}

/// Takes what can be taken of a stored entry.
fn stored(content: &mut Content, input: &[u8], to: &mut [u8]) -> Step {
    let left = usize::try_from(content.left).unwrap_or(usize::MAX);
    let length = input.len().min(to.len()).min(left);
    let input = input.get(..length).unwrap_or_default();
    to.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
    content.crc.update(input);
    content.left -= length as u64;
    Step { consumed: length, produced: length, end: content.left == 0 }
}

impl Decode for Zip {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            match std::mem::replace(&mut self.state, State::Done) {
                State::Content(content) => {
                    let (step, happened) = self.content(content, rest, output)?;
                    consumed += step.consumed;
                    if step.produced > 0 || !happened {
                        return Ok(Step { consumed, produced: step.produced, end: false });
                    }
                }
                State::Skip(0) => self.want(State::Signature, 4),
                State::Skip(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    consumed += length;
                    self.state = State::Skip(left - length as u64);
                    if length == 0 {
                        return Ok(Step { consumed, produced: 0, end: false });
                    }
                }
                // Whatever follows the archive is nobody's.
                State::Done => return Ok(Step { consumed: input.len(), produced: 0, end: last }),
                state => {
                    let length = self.wanted.saturating_sub(self.held.len()).min(rest.len());
                    self.held.extend(rest.iter().take(length));
                    consumed += length;
                    if self.held.len() < self.wanted {
                        self.state = state;
                        return Ok(Step { consumed, produced: 0, end: false });
                    }
                    self.record(state)?;
                }
            }
        }
    }
}
