//! The crates of a program, as listed in its section of `cargo auditable`.

use std::fs::File;
use std::io::Read as _;

use auditable_serde::{DependencyKind, VersionInfo};
use object::read::ReadCache;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use super::document::{Component, Sbom};
use crate::{Error, Result};

const SECTION: &str = ".dep-v0";
/// Most bytes of the list, compressed and uncompressed.
const MAX_LENGTH: u64 = 8 << 20;

/// The SBOM of `program`; an empty one if it does not list its crates.
pub(crate) fn sbom(program: &File) -> Result<Sbom> {
    let mut sbom = Sbom::default();
    let cache = ReadCache::new(program);
    let Ok(elf) = ElfFile64::<object::Endianness, _>::parse(&cache) else { return Ok(sbom) };
    let Some(section) = elf.section_by_name(SECTION) else { return Ok(sbom) };
    let invalid = |why: &str| {
        Error::input(format!("reading the crates of the evaluator (section {SECTION}): {why}"))
            .with_hint("build the evaluator again")
    };
    if section.size() > MAX_LENGTH {
        return Err(invalid("too long"));
    }
    let compressed = section.data().map_err(|error| invalid(&error.to_string()))?;
    let mut list = Vec::new();
    let read = flate2::read::ZlibDecoder::new(compressed).take(MAX_LENGTH + 1).read_to_end(&mut list);
    read.map_err(|error| invalid(&error.to_string()))?;
    if list.len() as u64 > MAX_LENGTH {
        return Err(invalid("too long"));
    }
    let list: VersionInfo = serde_json::from_slice(&list).map_err(|error| invalid(&error.to_string()))?;
    let component = |index: usize| {
        let package = list.packages.get(index)?;
        Some(Component::new("cargo", &package.name, &package.version.to_string(), ""))
    };
    for (index, package) in list.packages.iter().enumerate() {
        let Some(mut crate_component) = component(index).filter(|_| package.kind == DependencyKind::Runtime)
        else {
            continue;
        };
        crate_component.needs = package
            .dependencies
            .iter()
            .filter_map(|index| component(*index))
            .map(|needed| needed.purl)
            .collect();
        crate_component.needs.sort_unstable();
        sbom.add(crate_component);
    }
    Ok(sbom)
}
