//! A compiled filter: bytes, their digest, and the way into the kernel.

use seccompiler::{BpfProgram, sock_filter};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::compile::{RETURN, USER_NOTIF};
use crate::listener::Listener;
use crate::{Arch, Error, Result, sys};

/// The kernel's limit.
const MOST_INSTRUCTIONS: usize = 4096;
/// More filters than this nobody stacks.
const MOST_FILTERS: usize = 8;
const LONGEST_NAME: usize = 64;
/// `struct sock_filter`: code (2 bytes), jt, jf, k (4 bytes).
const INSTRUCTION: usize = 8;

/// Compiled filters, in the order in which they are installed, and their digest.
///
/// The digest covers the bytes of all filters in order and nothing else: the same rules under another name have the same one.
/// Two programs are equal when their names and bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
#[non_exhaustive]
pub struct Program {
    /// The name of the profile it was compiled from.
    pub name: String,
    /// What it was compiled for.
    pub arch: Arch,
    /// Little-endian `struct sock_filter`, one after the other.
    pub filters: Vec<Vec<u8>>,
    /// `sha256:` and 64 digits. [`Program::install`] refuses a program whose bytes have another one.
    pub digest: String,
}

impl Program {
    pub(crate) fn new(name: &str, arch: Arch, filters: Vec<BpfProgram>) -> Result<Self> {
        let filters = filters.iter().map(|filter| filter.iter().flat_map(bytes_of).collect()).collect();
        Self::checked(name.to_owned(), arch, filters)
    }

    /// One that was compiled before: the bytes of its only filter.
    pub(crate) fn compiled(name: &str, arch: Arch, filter: &[u8]) -> Result<Self> {
        Self::checked(name.to_owned(), arch, vec![filter.to_vec()])
    }

    fn checked(name: String, arch: Arch, filters: Vec<Vec<u8>>) -> Result<Self> {
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Error::integrity(format!("a name has 1 to {LONGEST_NAME} printable characters")));
        }
        if filters.is_empty() || filters.len() > MOST_FILTERS {
            return Err(Error::integrity(format!(
                "{} filters, where 1 to {MOST_FILTERS} can be",
                filters.len()
            )));
        }
        for filter in &filters {
            let whole = filter.len() % INSTRUCTION == 0;
            if !whole || filter.is_empty() || filter.len() > MOST_INSTRUCTIONS * INSTRUCTION {
                let what = format!("{} bytes are not 1 to {MOST_INSTRUCTIONS} instructions", filter.len());
                return Err(Error::integrity(what));
            }
        }
        let digest = digest(&filters);
        Ok(Self { name, arch, filters, digest })
    }

    /// Number of instructions of all filters together.
    pub fn instructions(&self) -> usize {
        self.filters.iter().map(|filter| filter.len() / INSTRUCTION).sum()
    }

    fn with_digest(self, expected: &str) -> Result<Self> {
        if self.digest == expected {
            return Ok(self);
        }
        Err(Error::integrity(format!(
            "filter {} has digest {}, but {expected} was said",
            self.name, self.digest
        )))
    }

    /// Whether refused calls are heard: such a program is installed with [`Ready::install_heard`], any other with the rest.
    pub fn is_heard(&self) -> bool {
        let returns = |it: &sock_filter| it.code == RETURN && it.k == USER_NOTIF;
        self.filters.iter().any(|filter| instructions(filter).iter().any(returns))
    }

    /// Installs the filters on the calling thread, for good; what it starts inherits them. Sets `no_new_privs`.
    pub fn install(&self) -> Result<()> {
        self.ready()?.install()
    }

    /// Installs the filters on every thread of this process, for good. Sets `no_new_privs`. Fails, and changes nothing, when a thread
    /// has a filter that this one does not descend from.
    pub fn install_all_threads(&self) -> Result<()> {
        self.ready()?.install_with(seccompiler::apply_filter_all_threads)
    }

    /// Checks it once more and makes everything the kernel wants, so that installing it needs no memory.
    pub fn ready(&self) -> Result<Ready<'_>> {
        let machine = Arch::native()?;
        if machine != self.arch {
            let (name, program, machine) = (&self.name, self.arch.as_str(), machine.as_str());
            return Err(Error::unsupported(format!(
                "filter {name} is for {program}, this machine is {machine}"
            )));
        }
        let whole =
            Self::checked(self.name.clone(), self.arch, self.filters.clone())?.with_digest(&self.digest)?;
        let filters = whole.filters.iter().map(|filter| instructions(filter)).collect();
        Ok(Ready { program: self, heard: self.is_heard(), filters })
    }
}

/// A program about to be installed.
pub struct Ready<'a> {
    program: &'a Program,
    heard: bool,
    filters: Vec<BpfProgram>,
}

impl Ready<'_> {
    /// As [`Program::is_heard`].
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// As [`Program::install`]. Where it succeeds, it has neither taken nor given back memory.
    pub fn install(&self) -> Result<()> {
        self.install_with(seccompiler::apply_filter)
    }

    fn install_with(&self, apply: impl Fn(&[sock_filter]) -> seccompiler::Result<()>) -> Result<()> {
        let name = &self.program.name;
        if self.heard {
            return Err(Error::system(format!("filter {name}: nobody would hear what it refuses")));
        }
        for filter in &self.filters {
            apply(filter).map_err(|error| {
                let doing = format!("installing filter {name}: {error}");
                match &error {
                    seccompiler::Error::Seccomp(cause) | seccompiler::Error::Prctl(cause)
                        if is_missing(cause) =>
                    {
                        Error::unsupported(format!("{doing}; {NO_SECCOMP}"))
                    }
                    _ => Error::system(doing),
                }
            })?;
        }
        Ok(())
    }

    /// Installs a program whose refused calls are heard, on the calling thread. What hears them is the [`Listener`], closed by
    /// execve(2); a refused call waits for its answer, so somebody else must hold it before this thread makes one. Where it
    /// succeeds, it has neither taken nor given back memory.
    pub fn install_heard(&self) -> Result<Listener> {
        let name = &self.program.name;
        let [filter] = self.filters.as_slice() else {
            return Err(Error::system(format!("filter {name}: there is one listener, so one filter")));
        };
        sys::install_heard(filter).map(Listener::new).map_err(|error| {
            let doing = format!("installing filter {name} so that refused calls are heard: {error}");
            match error.raw_os_error() {
                Some(libc::EBUSY) => Error::unsupported(format!(
                    "{doing}: whoever started this program hears its refused calls already, and the kernel allows one listener; start it outside that container or sandbox"
                )),
                _ if is_missing(&error) => Error::unsupported(format!("{doing}; {NO_SECCOMP}")),
                _ => Error::system(doing),
            }
        })
    }
}

/// What to do where the kernel does not know seccomp(2), its filters or their listeners.
const NO_SECCOMP: &str =
    "install Linux 5.15 or newer with CONFIG_SECCOMP_FILTER; in a container, let its filter allow seccomp";

fn is_missing(cause: &std::io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

fn digest(filters: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    hash.update((filters.len() as u32).to_le_bytes());
    for filter in filters {
        hash.update((filter.len() as u32).to_le_bytes());
        hash.update(filter);
    }
    format!("sha256:{}", hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes()
        .chunks(2)
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::integrity("a filter is written as pairs of lower-case hexadecimal digits"))
}

fn bytes_of(it: &sock_filter) -> [u8; INSTRUCTION] {
    let ([c0, c1], [k0, k1, k2, k3]) = (it.code.to_le_bytes(), it.k.to_le_bytes());
    [c0, c1, it.jt, it.jf, k0, k1, k2, k3]
}

fn instructions(filter: &[u8]) -> BpfProgram {
    filter
        .chunks_exact(INSTRUCTION)
        .map(|it| sock_filter {
            code: u16::from_le_bytes([it[0], it[1]]),
            jt: it[2],
            jf: it[3],
            k: u32::from_le_bytes([it[4], it[5], it[6], it[7]]),
        })
        .collect()
}

/// How a program looks in JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    arch: Arch,
    filters: Vec<String>,
    digest: String,
}

impl From<Program> for Written {
    fn from(program: Program) -> Self {
        let filters = program.filters.iter().map(|filter| hex(filter)).collect();
        Self { name: program.name, arch: program.arch, filters, digest: program.digest }
    }
}

impl TryFrom<Written> for Program {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let filters = written.filters.iter().map(|filter| unhex(filter)).collect::<Result<_>>()?;
        Self::checked(written.name, written.arch, filters)?.with_digest(&written.digest)
    }
}
