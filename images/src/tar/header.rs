//! One 512-byte header. A field that two readers could interpret differently is refused.

use crate::{Error, Result};

pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Clone)]
pub(crate) struct Header([u8; BLOCK]);

/// The format of a header, by its magic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Before POSIX: no magic, no prefix.
    Old,
    /// `ustar`, NUL, `00`: with a prefix.
    Posix,
    /// `ustar`, two spaces, NUL: the bytes of the prefix have other meanings.
    Gnu,
}

/// Whether the checksum in a block is that of a header.
pub fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    // The field of the checksum counts as spaces.
    let expected = sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..]);
    number(&block[148..156]) == Some(expected)
}

impl Header {
    pub fn parse(block: [u8; BLOCK]) -> Result<Self> {
        if !has_checksum(&block) {
            return Err(Error::integrity("the archive is corrupt: wrong header checksum"));
        }
        let header = Self(block);
        header.check_prefix()?;
        header.check_numbers()?;
        Ok(header)
    }

    /// Refuses malformed numbers, also in fields that are not used: Python stops at such a header as if the archive ended there, and GNU
    /// tar continues.
    fn check_numbers(&self) -> Result<()> {
        let blank = |field: &[u8]| field.iter().all(|byte| matches!(byte, b' ' | 0));
        // A negative time that fits into the type of every reader.
        let negative = |field: &[u8]| field[..4] == [0xff; 4] && field[4] >= 0x80;
        // Some writers leave owner, group and time blank, which all readers take for 0.
        let can_be_blank = |at: usize| matches!(at, 108 | 116 | 136) || at > 300;
        // Mode, owner, group, time, and both numbers of a device.
        let fields =
            [100..108, 108..116, 116..124, 136..148, 329..337, 337..345].map(|at| (at.start, &self.0[at]));
        let is_extension = matches!(self.kind(), b'L' | b'K' | b'x' | b'g');
        let good = fields.iter().all(|(at, field)| {
            number(field).is_some()
                || (is_extension || can_be_blank(*at)) && blank(field)
                || *at == 136 && negative(field)
        });
        match good {
            true => Ok(()),
            false => Err(Error::integrity("the archive is corrupt: malformed number in a header")),
        }
    }

    fn dialect(&self) -> Result<Dialect> {
        match &self.0[257..265] {
            b"ustar\x0000" => Ok(Dialect::Posix),
            b"ustar  \0" => Ok(Dialect::Gnu),
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(Dialect::Old),
            _ => Err(Error::unsupported("unknown header format")),
        }
    }

    /// Refuses an ambiguous prefix. Some readers prepend the prefix to every name, others only in POSIX headers; that of star is shorter.
    fn check_prefix(&self) -> Result<()> {
        let prefix = self.0[345..500].iter().any(|byte| *byte != 0);
        let ambiguous = match self.dialect()? {
            Dialect::Posix => &self.0[508..] == b"tar\0",
            Dialect::Gnu => self.kind() != b'S' && prefix,
            Dialect::Old => prefix,
        };
        match ambiguous {
            true => Err(Error::safety("a header with a prefix that readers interpret differently")),
            false => Ok(()),
        }
    }

    /// The type flag. The old flag of a file, NUL, is returned as `0`.
    pub fn kind(&self) -> u8 {
        match self.0[156] {
            0 => b'0',
            other => other,
        }
    }

    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        match text(&self.0[345..500]) {
            prefix if !prefix.is_empty() && self.dialect().is_ok_and(|it| it == Dialect::Posix) => {
                [prefix, b"/", name].concat()
            }
            _ => name.to_vec(),
        }
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub fn size(&self) -> Result<u64> {
        number(&self.0[124..136])
            .ok_or_else(|| Error::integrity("the archive is corrupt: malformed or negative size"))
    }

    pub fn mode(&self) -> Result<u32> {
        number(&self.0[100..108])
            .and_then(|it| u32::try_from(it).ok())
            .ok_or_else(|| Error::integrity("the archive is corrupt: malformed mode"))
    }

    /// The modification time. One before 1970 is returned as 0: times are not content.
    pub fn mtime(&self) -> u64 {
        number(&self.0[136..148]).unwrap_or(0)
    }

    /// A field that only sparse files of GNU tar have.
    pub(super) fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.0[range]
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits with spaces before and spaces or NULs after them, or 0x80 and a big-endian number. Signs, blank fields and
/// more than 63 bits are refused.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let value = rest
            .iter()
            .try_fold(0u64, |value, byte| value.checked_mul(256).map(|value| value | u64::from(*byte)));
        return value.filter(|value| *value <= i64::MAX as u64);
    }
    let start = field.iter().position(|byte| *byte != b' ')?;
    let rest = &field[start..];
    let end = rest.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(rest.len());
    let (digits, padding) = rest.split_at(end);
    if digits.is_empty() || padding.iter().any(|byte| !matches!(byte, b' ' | 0)) {
        return None;
    }
    // Twelve octal digits are 36 bits.
    Some(digits.iter().fold(0, |value, digit| value * 8 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn rejects_ambiguous_numbers() {
        for (field, value) in [
            (&b"00000000012\0"[..], Some(10)),
            (b"000000000012", Some(10)),
            (b"      12 \0\0\0", Some(10)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX as u64)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\x01", None),
            (b"            ", None),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"-0000000012\0", None),
            (b"+0000000012\0", None),
            (b"0o000000012\0", None),
            (b"0_000000012\0", None),
            (b"00000000018\0", None),
            (b"0000012\x00123\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
