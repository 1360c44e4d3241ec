//! Reads numbers, strings and metadata values from the start of a GGUF file.

use std::path::Path;

use invarlock_error::{Error, Result};

/// Bytes of a name.
const MAX_NAME: usize = 1024;
/// Characters of a metadata string that are kept.
const MAX_TEXT: usize = 256;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    Array(Array),
}

/// An array, which is read when it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array {
    /// Type of the elements.
    element: u32,
    count: u64,
    /// Where the first element is.
    start: usize,
}

impl Array {
    /// The elements, which must be of `element` type. `bytes` are those of the whole file, in which the array was found.
    fn elements<'b, T>(
        self,
        path: &'b Path,
        bytes: &'b [u8],
        element: u32,
        read: impl Fn(&mut Reader<'b>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut reader = Reader { path, bytes, position: self.start };
        if self.element != element {
            return Err(
                reader.wrong(&format!("an array of metadata type {}; expected: {element}", self.element))
            );
        }
        (0..self.count).map(|_| read(&mut reader)).collect()
    }

    /// Strings.
    pub fn names(self, path: &Path, bytes: &[u8]) -> Result<Vec<String>> {
        self.elements(path, bytes, 8, |reader| reader.name("string"))
    }

    /// 32-bit integers.
    pub fn integers(self, path: &Path, bytes: &[u8]) -> Result<Vec<i32>> {
        self.elements(path, bytes, 5, |reader| Ok(i32::from_le_bytes(reader.array()?)))
    }

    /// Single-precision numbers.
    pub fn floats(self, path: &Path, bytes: &[u8]) -> Result<Vec<f32>> {
        self.elements(path, bytes, 6, |reader| Ok(f32::from_le_bytes(reader.array()?)))
    }
}

/// A position in the bytes of a file.
#[derive(Debug)]
pub struct Reader<'b> {
    path: &'b Path,
    bytes: &'b [u8],
    position: usize,
}

impl<'b> Reader<'b> {
    pub fn new(path: &'b Path, bytes: &'b [u8]) -> Self {
        Self { path, bytes, position: 0 }
    }

    /// Bytes that were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// An error at this position.
    pub fn wrong(&self, what: &str) -> Error {
        Error::input(format!("{}: invalid GGUF file at byte {}: {what}", self.path.display(), self.position))
    }

    /// Reads the magic bytes and the version.
    pub fn start(&mut self) -> Result<u32> {
        if self.take(4)? != b"GGUF" {
            return Err(self.wrong("it does not start with GGUF"));
        }
        self.u32()
    }

    fn take(&mut self, n: usize) -> Result<&'b [u8]> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.get(..n) else {
            return Err(
                self.wrong(&format!("{n} bytes are needed, but the file has only {} more", rest.len()))
            );
        };
        self.position += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things, at most `max`.
    pub fn count(&mut self, what: &str, max: u64) -> Result<u64> {
        match self.u64()? {
            count if count <= max => Ok(count),
            count => Err(self.wrong(&format!("{count} {what}; supported: {max}"))),
        }
    }

    fn bytes(&mut self) -> Result<&'b [u8]> {
        let length = self.u64()?;
        // A length beyond the address space is beyond the file as well.
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A short string.
    pub fn name(&mut self, what: &str) -> Result<String> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_NAME) {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(&format!("a {what} that is not UTF-8 of at most {MAX_NAME} bytes"))),
        }
    }

    /// A metadata value with its type.
    pub fn value(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        match kind {
            9 => {
                let element = self.u32()?;
                let count = self.u64()?;
                let array = Array { element, count, start: self.position };
                self.skip(element, count)?;
                Ok(Value::Array(array))
            }
            _ => self.scalar(kind),
        }
    }

    fn scalar(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>()?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Flag(self.array::<1>()?[0] != 0),
            8 => Value::Text(String::from_utf8_lossy(self.bytes()?).chars().take(MAX_TEXT).collect()),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.wrong(&format!("metadata type {kind}"))),
        })
    }

    /// Skips the elements of an array. The work is bounded by the length of the file.
    fn skip(&mut self, element: u32, count: u64) -> Result<()> {
        let size = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..count {
                    self.bytes()?;
                }
                return Ok(());
            }
            _ => return Err(self.wrong(&format!("an array of metadata type {element}"))),
        };
        let length = count.checked_mul(size).and_then(|n| usize::try_from(n).ok());
        self.take(length.unwrap_or(usize::MAX)).map(|_| ())
    }
}
