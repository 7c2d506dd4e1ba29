//! zstd streams ([RFC 8878](https://www.rfc-editor.org/rfc/rfc8878)): frames one after the other, as `pzstd` and `cat` make them,
//! each compared with its checksum where it has one.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// Whether a stream begins with a frame, be it one to be skipped (3.1.1 and 3.1.2).
pub(super) fn begins(stream: &[u8]) -> bool {
    matches!(stream, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// What a stream holds. Its errors are for people: the decoder's own are its source's names.
pub(super) struct Zstd<R> {
    stream: R,
    frame: FrameDecoder,
    begun: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, frame: FrameDecoder::new(), begun: false }
    }

    /// Goes on to the next frame, if there is one.
    fn next(&mut self) -> io::Result<bool> {
        self.begun = false;
        while !self.stream.fill_buf()?.is_empty() {
            match self.frame.init(&mut self.stream) {
                Ok(()) => {
                    self.begun = true;
                    break;
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.stream.by_ref().take(length), &mut io::sink())? < length {
                        return Err(broken("is broken or cut short"));
                    }
                }
                Err(_) => return Err(broken("is broken or cut short")),
            }
        }
        Ok(self.begun)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.begun || self.next()? {
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let some = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.frame.decode_blocks(&mut self.stream, some).map_err(|_| broken("is broken or cut short"))?;
            }
            let length = self.frame.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let told = self.frame.get_checksum_from_data();
            if told.is_some() && told != self.frame.get_calculated_checksum() {
                return Err(broken("does not have the checksum that stands at its end: it is damaged"));
            }
            self.begun = false;
        }
        Ok(0)
    }
}

fn broken(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its zstd stream {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of one raw block with a checksum (3.1.1): the low half of the XXH64 of what it holds.
    fn frame(text: &[u8], checksum: u32) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x24, text.len() as u8];
        let header = (text.len() as u32) << 3 | 1;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(text);
        frame.extend(checksum.to_le_bytes());
        frame
    }

    fn read(stream: &[u8]) -> Result<String, String> {
        let mut text = String::new();
        Zstd::new(stream).read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    }

    /// As `zstd --check` writes them for `abc` and for nothing.
    const ABC: u32 = 0xad77_0999;
    const NOTHING: u32 = 0x51d8_e999;

    #[test]
    fn frames_follow_each_other_and_some_are_skipped() {
        let skipped = [0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let stream = [&skipped, &frame(b"abc", ABC)[..], &skipped, &frame(b"", NOTHING), &frame(b"abc", ABC)].concat();
        assert!(begins(&stream));
        assert_eq!(read(&stream).unwrap(), "abcabc");
        assert_eq!(read(&[]).unwrap(), "");
    }

    #[test]
    fn damage_is_told() {
        let whole = [frame(b"abc", ABC), frame(b"abc", ABC)].concat();
        let mut flipped = whole.clone();
        flipped[9] ^= 1;
        assert!(read(&flipped).unwrap_err().contains("checksum"));
        for end in (1..whole.len()).filter(|end| *end != whole.len() / 2) {
            assert!(read(&whole[..end]).unwrap_err().contains("cut short"), "{end}");
        }
        assert!(read(&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9]).unwrap_err().contains("cut short"));
        assert!(read(&[&whole[..], b"more"].concat()).unwrap_err().contains("broken"));
    }
}
