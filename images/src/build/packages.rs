//! Which packages are installed in a root directory, by the notes that Debian's and Python's installers leave there.

use crate::sbom::{Component, Sbom};

/// Longest note that is read.
const LONGEST: u64 = 16 << 20;
const DEBIAN: &str = "var/lib/dpkg/status";
const PYTHON: &str = ".dist-info/METADATA";
/// Where notes are that nobody here reads: of apk, rpm, and images without dpkg.
const UNREAD: [&str; 4] =
    ["lib/apk/db/installed", "var/lib/rpm/", "usr/lib/sysimage/rpm/", "var/lib/dpkg/status.d/"];

/// The packages found so far.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    /// None where there is no note of it.
    debian: Option<Vec<Component>>,
    python: Vec<Component>,
    /// There are notes that were not read.
    unread: bool,
}

impl Packages {
    /// Whether the file at `path` is such a note that can be read.
    pub fn look_at(&mut self, path: &str, size: u64) -> bool {
        let is_note = path == DEBIAN || path.ends_with(PYTHON);
        self.unread |= is_note && size > LONGEST || UNREAD.iter().any(|it| path.starts_with(it));
        is_note && size <= LONGEST
    }

    /// Takes in what it says. Debian's speaks of all its packages: a later layer's counts.
    pub fn note(&mut self, path: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if path == DEBIAN {
            self.debian = Some(text.split("\n\n").filter_map(debian).collect());
        } else {
            self.python.extend(python(&text));
        }
    }

    /// Adds them to the bill of what lies below. None where it is not known which packages there are: two versions of one that lie over
    /// one another, or notes that nobody read.
    pub fn list(self, mut bill: Sbom) -> Option<Sbom> {
        if let Some(debian) = self.debian {
            // It speaks of those below as well.
            bill.retain(|it| !it.purl.starts_with("pkg:deb/"));
            debian.into_iter().for_each(|it| bill.add(it));
        }
        for package in self.python {
            let same = |it: &&Component| it.name == package.name && it.purl.starts_with("pkg:pypi/");
            if bill.iter().filter(same).any(|it| it.version != package.version) {
                return None;
            }
            bill.add(package);
        }
        (!self.unread).then_some(bill)
    }
}

/// The value of a field before the first empty line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().take_while(|line| !line.is_empty());
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(str::trim).filter(|value| !value.is_empty())
}

fn debian(stanza: &str) -> Option<Component> {
    let installed = field(stanza, "Status")?.ends_with(" installed");
    let (name, version) = (field(stanza, "Package")?, field(stanza, "Version")?);
    let arch = field(stanza, "Architecture")
        .filter(|it| it.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))?;
    installed.then(|| Component::new("deb/debian", name, version, &format!("?arch={arch}")))
}

fn python(metadata: &str) -> Option<Component> {
    // Of one spelling, as package URLs have it.
    let name = field(metadata, "Name")?.to_ascii_lowercase().replace('_', "-");
    Some(Component::new("pypi", &name, field(metadata, "Version")?, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read() {
        let mut packages = Packages::default();
        let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12+deb13u1\nDescription: x\n Version: 9\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\nPackage: odd\n";
        packages.note(DEBIAN, status.as_bytes());
        packages.note(
            "a.dist-info/METADATA",
            b"Metadata-Version: 2.4\nName: Huggingface_Hub\nVersion: 2.4.0\n\nName: no\n",
        );
        packages.note("b.dist-info/METADATA", b"\n\nName: no\nVersion: 1\n");
        let purls: Vec<&str> =
            packages.debian.iter().flatten().chain(&packages.python).map(|it| it.purl.as_str()).collect();
        assert_eq!(
            purls,
            ["pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64", "pkg:pypi/huggingface-hub@2.4.0"]
        );
    }
}
