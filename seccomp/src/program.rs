//! A compiled filter: its bytes, their digest, and its installation.

use seccompiler::{BpfProgram, sock_filter};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bpf::{RET_USER_NOTIF, RETURN};
use crate::listener::Listener;
use crate::{Arch, Error, Result, sys};

/// The limit of the kernel.
const MAX_INSTRUCTIONS: usize = 4096;
/// Limit of the filters of a program.
const MAX_FILTERS: usize = 8;
const MAX_NAME: usize = 64;
/// `struct sock_filter`: code (2 bytes), jt, jf, k (4 bytes).
const INSTRUCTION: usize = 8;

/// Compiled filters in the order of their installation, and their digest.
///
/// The digest covers the bytes of all filters in order and nothing else: the same rules under another name have the same digest.
/// Two programs are equal when their names and bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProgramJson", into = "ProgramJson")]
#[non_exhaustive]
pub struct Program {
    /// The name of the compiled profile.
    pub name: String,
    /// The architecture.
    pub arch: Arch,
    /// Little-endian `struct sock_filter`, one after the other.
    pub filters: Vec<Vec<u8>>,
    /// `sha256:` and 64 digits. [`Program::install`] rejects a program whose bytes have another digest.
    pub digest: String,
}

impl Program {
    pub(crate) fn new(name: &str, arch: Arch, filters: Vec<BpfProgram>) -> Result<Self> {
        let filters = filters.iter().map(|filter| filter.iter().flat_map(bytes_of).collect()).collect();
        Self::checked(name.to_owned(), arch, filters)
    }

    /// A program from the bytes of its only filter.
    pub(crate) fn compiled(name: &str, arch: Arch, filter: &[u8]) -> Result<Self> {
        Self::checked(name.to_owned(), arch, vec![filter.to_vec()])
    }

    fn checked(name: String, arch: Arch, filters: Vec<Vec<u8>>) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Error::integrity(format!(
                "the name of a program must have 1 to {MAX_NAME} printable characters"
            )));
        }
        if filters.is_empty() || filters.len() > MAX_FILTERS {
            return Err(Error::integrity(format!(
                "{} filters; supported: 1 to {MAX_FILTERS}",
                filters.len()
            )));
        }
        for filter in &filters {
            let whole = filter.len() % INSTRUCTION == 0;
            if !whole || filter.is_empty() || filter.len() > MAX_INSTRUCTIONS * INSTRUCTION {
                let what = format!("{} bytes are not 1 to {MAX_INSTRUCTIONS} instructions", filter.len());
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
            "filter {} has the digest {}, expected {expected}",
            self.name, self.digest
        )))
    }

    /// Whether the program uses user notification. Such a program is installed with [`Ready::install_notify`], any other with the
    /// other functions.
    pub fn uses_notify(&self) -> bool {
        let notifies = |step: &sock_filter| step.code == RETURN && step.k == RET_USER_NOTIF;
        self.filters.iter().any(|filter| instructions(filter).iter().any(notifies))
    }

    /// Installs the filters on the calling thread, irrevocably; threads and processes that it starts inherit them. Sets
    /// `no_new_privs`.
    pub fn install(&self) -> Result<()> {
        self.ready()?.install()
    }

    /// Installs the filters on every thread of this process, irrevocably. Sets `no_new_privs`. Fails without a change when a
    /// thread has a filter that the calling thread does not have.
    pub fn install_all_threads(&self) -> Result<()> {
        self.ready()?.install_with(seccompiler::apply_filter_all_threads)
    }

    /// Verifies the digest and prepares the instructions, so that the installation allocates no memory.
    pub fn ready(&self) -> Result<Ready<'_>> {
        let machine = Arch::native()?;
        if machine != self.arch {
            let (name, program, machine) = (&self.name, self.arch.as_str(), machine.as_str());
            return Err(Error::unsupported(format!(
                "filter {name} is for {program}; this machine is {machine}"
            )));
        }
        let verified =
            Self::checked(self.name.clone(), self.arch, self.filters.clone())?.with_digest(&self.digest)?;
        let filters = verified.filters.iter().map(|filter| instructions(filter)).collect();
        Ok(Ready { program: self, notify: self.uses_notify(), filters })
    }
}

/// A program that is prepared for installation.
pub struct Ready<'a> {
    program: &'a Program,
    notify: bool,
    filters: Vec<BpfProgram>,
}

impl Ready<'_> {
    /// As [`Program::uses_notify`].
    pub fn uses_notify(&self) -> bool {
        self.notify
    }

    /// As [`Program::install`]. On success it has neither allocated nor freed memory.
    pub fn install(&self) -> Result<()> {
        self.install_with(seccompiler::apply_filter)
    }

    fn install_with(&self, apply: impl Fn(&[sock_filter]) -> seccompiler::Result<()>) -> Result<()> {
        let name = &self.program.name;
        if self.notify {
            return Err(Error::system(format!(
                "filter {name} uses user notification and must be installed with a listener"
            )));
        }
        for filter in &self.filters {
            apply(filter).map_err(|error| {
                let message = format!("installing filter {name}: {error}");
                match error {
                    seccompiler::Error::Seccomp(cause) | seccompiler::Error::Prctl(cause) => {
                        failed(message, cause)
                    }
                    _ => Error::system(message),
                }
            })?;
        }
        Ok(())
    }

    /// Installs a program with user notification on the calling thread. execve(2) closes the [`Listener`]. A denied call waits
    /// for its answer, so another thread or process must have the listener before this thread makes one. On success it has
    /// neither allocated nor freed memory.
    pub fn install_notify(&self) -> Result<Listener> {
        let name = &self.program.name;
        let [filter] = self.filters.as_slice() else {
            return Err(Error::system(format!(
                "filter {name}: a program with user notification must have one filter"
            )));
        };
        sys::install_notify(filter).map(Listener::new).map_err(|error| {
            let message = format!("installing filter {name} with user notification: {error}");
            match error.raw_os_error() {
                Some(libc::EBUSY) => Error::unsupported(format!(
                    "{message}: this process already has a filter with a listener, and the kernel allows one"
                ))
                .with_source(error)
                .with_hint("start it outside of the container or sandbox"),
                _ => failed(message, error),
            }
        })
    }
}

/// The hint for a kernel without seccomp(2), filters or listeners.
const NO_SECCOMP: &str =
    "install Linux 5.15 or newer with CONFIG_SECCOMP_FILTER; in a container, let its filter allow seccomp";

fn failed(message: String, cause: std::io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => Error::unsupported(message).with_hint(NO_SECCOMP),
        _ => Error::system(message),
    }
    .with_source(cause)
}

fn digest(filters: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    hash.update((filters.len() as u32).to_le_bytes());
    for filter in filters {
        hash.update((filter.len() as u32).to_le_bytes());
        hash.update(filter);
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// Only lower-case digits are accepted, so that a program has one JSON form.
fn decode(filter: &str) -> Result<Vec<u8>> {
    let lower_case = !filter.bytes().any(|byte| byte.is_ascii_uppercase());
    hex::decode(filter)
        .ok()
        .filter(|_| lower_case)
        .ok_or_else(|| Error::integrity("a filter must consist of pairs of lower-case hexadecimal digits"))
}

fn bytes_of(step: &sock_filter) -> [u8; INSTRUCTION] {
    let ([c0, c1], [k0, k1, k2, k3]) = (step.code.to_le_bytes(), step.k.to_le_bytes());
    [c0, c1, step.jt, step.jf, k0, k1, k2, k3]
}

fn instructions(filter: &[u8]) -> BpfProgram {
    filter
        .chunks_exact(INSTRUCTION)
        .map(|step| sock_filter {
            code: u16::from_le_bytes([step[0], step[1]]),
            jt: step[2],
            jf: step[3],
            k: u32::from_le_bytes([step[4], step[5], step[6], step[7]]),
        })
        .collect()
}

/// The JSON form of a program.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramJson {
    name: String,
    arch: Arch,
    filters: Vec<String>,
    digest: String,
}

impl From<Program> for ProgramJson {
    fn from(program: Program) -> Self {
        let filters = program.filters.iter().map(hex::encode).collect();
        Self { name: program.name, arch: program.arch, filters, digest: program.digest }
    }
}

impl TryFrom<ProgramJson> for Program {
    type Error = Error;

    fn try_from(written: ProgramJson) -> Result<Self> {
        let filters = written.filters.iter().map(|filter| decode(filter)).collect::<Result<_>>()?;
        Self::checked(written.name, written.arch, filters)?.with_digest(&written.digest)
    }
}
