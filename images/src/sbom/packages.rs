//! The packages installed in a root directory, as listed in the databases of Debian's and Python's package managers.

use super::document::{Component, Sbom};
use crate::layer::create::FileObserver;

/// Largest database that is read, in bytes.
const MAX_LENGTH: u64 = 16 << 20;
const DEBIAN: &str = "var/lib/dpkg/status";
const PYTHON: &str = ".dist-info/METADATA";
/// Paths of databases that are not supported: those of apk, rpm, and images without dpkg.
const UNSUPPORTED: [&str; 4] =
    ["lib/apk/db/installed", "var/lib/rpm/", "usr/lib/sysimage/rpm/", "var/lib/dpkg/status.d/"];

/// The packages found so far.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    /// `None` without such a database.
    debian: Option<Vec<Component>>,
    python: Vec<Component>,
    /// Whether there are databases that were not read.
    is_incomplete: bool,
}

impl FileObserver for Packages {
    fn wants(&mut self, path: &str, size: u64) -> bool {
        let is_database = path == DEBIAN || path.ends_with(PYTHON);
        self.is_incomplete |=
            is_database && size > MAX_LENGTH || UNSUPPORTED.iter().any(|prefix| path.starts_with(prefix));
        is_database && size <= MAX_LENGTH
    }

    fn observe(&mut self, path: &str, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        if path == DEBIAN {
            // The database lists all packages, so that of the last layer replaces earlier ones.
            self.debian = Some(text.split("\n\n").filter_map(debian).collect());
        } else {
            self.python.extend(python(&text));
        }
    }
}

impl Packages {
    /// Adds the packages to the SBOM of the lower layers. `None` if the packages are not known exactly: two versions of a package in
    /// different layers, or a database that was not read.
    pub fn add_to(self, mut sbom: Sbom) -> Option<Sbom> {
        if let Some(debian) = self.debian {
            // The database also lists the packages of lower layers.
            sbom.retain(|component| !component.purl.starts_with("pkg:deb/"));
            debian.into_iter().for_each(|package| sbom.add(package));
        }
        for package in self.python {
            let same = |other: &&Component| other.name == package.name && other.purl.starts_with("pkg:pypi/");
            if sbom.iter().filter(same).any(|other| other.version != package.version) {
                return None;
            }
            sbom.add(package);
        }
        (!self.is_incomplete).then_some(sbom)
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
    // The normalized spelling of package URLs.
    let name = field(metadata, "Name")?.to_ascii_lowercase().replace('_', "-");
    Some(Component::new("pypi", &name, field(metadata, "Version")?, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dpkg_and_python_databases() {
        let mut packages = Packages::default();
        let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12+deb13u1\nDescription: x\n Version: 9\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\nPackage: odd\n";
        packages.observe(DEBIAN, status.as_bytes());
        packages.observe(
            "a.dist-info/METADATA",
            b"Metadata-Version: 2.4\nName: Huggingface_Hub\nVersion: 2.4.0\n\nName: no\n",
        );
        packages.observe("b.dist-info/METADATA", b"\n\nName: no\nVersion: 1\n");
        let purls: Vec<&str> = packages
            .debian
            .iter()
            .flatten()
            .chain(&packages.python)
            .map(|package| package.purl.as_str())
            .collect();
        assert_eq!(
            purls,
            ["pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64", "pkg:pypi/huggingface-hub@2.4.0"]
        );
    }
}
