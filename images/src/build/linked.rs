//! Which crates a program of ours is made of, by what it says itself: the section of `cargo auditable`.

use std::fs::File;
use std::io::Read as _;

use auditable_serde::{DependencyKind, VersionInfo};
use object::read::ReadCache;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use crate::sbom::{Component, Sbom};
use crate::{Error, Result};

const SECTION: &str = ".dep-v0";
/// Longest list, packed and not.
const LONGEST: u64 = 8 << 20;

/// The bill of `program`; an empty one where it does not say what it is made of.
pub(crate) fn bill(program: &File) -> Result<Sbom> {
    let mut bill = Sbom::default();
    let cache = ReadCache::new(program);
    let Ok(elf) = ElfFile64::<object::Endianness, _>::parse(&cache) else { return Ok(bill) };
    let Some(section) = elf.section_by_name(SECTION) else { return Ok(bill) };
    let odd = |why: &str| {
        Error::input(format!(
            "reading which crates the evaluator is made of (section {SECTION}): {why}; build it anew"
        ))
    };
    if section.size() > LONGEST {
        return Err(odd("too long"));
    }
    let packed = section.data().map_err(|error| odd(&error.to_string()))?;
    let mut list = Vec::new();
    let read = flate2::read::ZlibDecoder::new(packed).take(LONGEST + 1).read_to_end(&mut list);
    read.map_err(|error| odd(&error.to_string()))?;
    if list.len() as u64 > LONGEST {
        return Err(odd("too long"));
    }
    let list: VersionInfo = serde_json::from_slice(&list).map_err(|error| odd(&error.to_string()))?;
    let component = |index: usize| {
        let package = list.packages.get(index)?;
        Some(Component::new("cargo", &package.name, &package.version.to_string(), ""))
    };
    for (index, package) in list.packages.iter().enumerate() {
        let Some(mut it) = component(index).filter(|_| package.kind == DependencyKind::Runtime) else {
            continue;
        };
        it.needs =
            package.dependencies.iter().filter_map(|index| component(*index)).map(|it| it.purl).collect();
        it.needs.sort_unstable();
        bill.add(it);
    }
    Ok(bill)
}
