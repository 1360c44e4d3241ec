//! Which packages are installed in a root directory, by the notes that Debian's and Python's installers leave there.

use crate::sbom::{Bill, Component};

/// Longest note that is read.
const LONGEST: u64 = 16 << 20;
const DEBIAN: &str = "var/lib/dpkg/status";
const PYTHON: &str = ".dist-info/METADATA";

/// The packages found so far.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    debian: Vec<Component>,
    python: Vec<Component>,
}

impl Packages {
    /// Whether the file at `path` is such a note.
    pub fn wants(&self, path: &str, size: u64) -> bool {
        size <= LONGEST && (path == DEBIAN || path.ends_with(PYTHON))
    }

    /// Takes in what it says. Debian's speaks of all its packages: a later layer's counts.
    pub fn note(&mut self, path: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if path == DEBIAN {
            self.debian = text.split("\n\n").filter_map(debian).collect();
        } else {
            self.python.extend(python(&text));
        }
    }

    /// Adds them to a bill.
    pub fn list(self, bill: &mut Bill) {
        self.debian.into_iter().chain(self.python).for_each(|it| bill.add(it));
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
            packages.debian.iter().chain(&packages.python).map(|it| it.purl.as_str()).collect();
        assert_eq!(
            purls,
            ["pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64", "pkg:pypi/huggingface-hub@2.4.0"]
        );
    }
}
