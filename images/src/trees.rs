//! Unpacked layers by diff id, shared by all images.
//!
//! A tree grows inside `….partial`, whose lock its maker holds; it leaves that and gets its name when it is whole, on disk and sealed.
//! Whoever uses a tree holds its own lock together with others; whoever takes it away holds that alone, and never waits for it. So who
//! waits for a maker waits for nobody who uses what was made. All of these locks go with the process.

use invarlock_error::Context as _;
use invarlock_error::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FlockOperation, flock, fstat, statat, syncfs};
use rustix::io::Errno;

use crate::blobs::{Blobs, LayerReader};
use crate::files::{
    make_dir, open, open_dir, parse, random, read_bounded, sync, write_beside, write_verified,
};
use crate::hooks::step;
use crate::policy::{Bounds, Policy};
use crate::record::{Seal, Totals};
use crate::resolve::Layer;
use crate::unpack::unpack;
use crate::verify::{Level, Verify};
use crate::{Digest, Error, Result, parallel, tree, verity};

const LONGEST_SEAL: u64 = 4096;
/// Times of changes are as fine as the kernel's clock ticks. After this long a later change has another time.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Trees {
    dir: Dir,
    path: PathBuf,
    bounds: Bounds,
}

/// A tree that stays there as long as this value.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    dir: Arc<Dir>,
    /// The directory to mount.
    pub root: PathBuf,
    pub diff_id: Digest,
    pub totals: Totals,
    /// It was unpacked just now, out of verified bytes.
    pub fresh: bool,
    seal: Seal,
    _lock: Arc<OwnedFd>,
}

impl Tree {
    /// The directory to mount, by its handle.
    pub fn open_root(&self) -> Result<Dir> {
        open_dir(&self.dir, "root")
    }
}

pub(crate) fn tree_name(diff_id: &Digest) -> String {
    format!("sha256-{}", diff_id.hex())
}

impl Trees {
    pub fn open_or_create(store: &Dir, store_path: &Path) -> Result<Self> {
        make_dir(store, "trees")?;
        let dir = open_dir(store, "trees")?;
        make_dir(&dir, "empty")?;
        Ok(Self { dir, path: store_path.join("trees"), bounds: Bounds::default() })
    }

    /// A directory with nothing in it.
    pub fn empty(&self) -> Result<PathBuf> {
        let entries = open_dir(&self.dir, "empty")?.entries().context("looking at the empty tree")?;
        match entries.count() {
            0 => Ok(self.path.join("empty")),
            _ => Err(Error::integrity("the empty tree has something in it: the store was altered")),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.path.join(name) // join: a digest's digits, or what is listed in the directory of trees
    }

    /// The names that are there.
    pub fn names(&self) -> Result<Vec<String>> {
        let doing = || "looking at the store's trees";
        let entries = self.dir.entries().context(doing())?;
        entries.map(|it| Ok(it.context(doing())?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The tree of a layer, where there is one. Waits until nobody takes it away.
    pub fn find(&self, diff_id: &Digest) -> Result<Option<Tree>> {
        let name = tree_name(diff_id);
        match statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => drop(other.map_err(|error| Error::system(format!("looking at tree {name}: {error}")))?),
        }
        let dir = match open_dir(&self.dir, &name) {
            Err(error) if error.kind() == Kind::Integrity => return Ok(None),
            other => other?,
        };
        let lock = dir.as_fd().try_clone_to_owned().context("opening a tree")?;
        take(&lock, FlockOperation::LockShared)?;
        if !is_at(&lock, &self.dir, &name) {
            return Ok(None);
        }
        let seal =
            read_bounded(open(&self.dir, &format!("{name}.seal"))?, LONGEST_SEAL, "the seal of the tree")?;
        let seal: Seal = parse("the seal of the tree", &seal)?;
        Ok(Some(Tree {
            dir: Arc::new(dir),
            root: self.place(&name).join("root"),
            diff_id: *diff_id,
            totals: seal.totals,
            fresh: false,
            seal,
            _lock: Arc::new(lock),
        }))
    }

    /// The trees of layers, in their order, those that are not there unpacked from `source`, all at once.
    pub fn get(&self, source: &dyn Blobs, layers: &[Layer], policy: Policy) -> Result<Vec<Tree>> {
        let mut made = BTreeSet::new();
        loop {
            let mut missing: BTreeMap<Digest, &Layer> = BTreeMap::new();
            let mut trees = Vec::new();
            for layer in layers {
                let within = |error: Error| error.context(format_args!("tree of layer {}", layer.diff_id));
                match self.find(&layer.diff_id).map_err(|error| self.damaged(&layer.diff_id, error))? {
                    Some(mut tree) => {
                        policy.allows(&tree.totals).map_err(within)?;
                        tree.fresh = made.contains(&layer.diff_id);
                        trees.push(tree);
                    }
                    None => drop(missing.insert(layer.diff_id, layer)),
                }
            }
            if missing.is_empty() {
                return Ok(trees);
            }
            made.extend(self.unpack(source, missing, policy)?);
        }
    }

    /// Unpacks beside the places, verifies blobs and diff ids, syncs, and only then renames. Gives the layers that nobody else did
    /// meanwhile.
    fn unpack(
        &self,
        source: &dyn Blobs,
        missing: BTreeMap<Digest, &Layer>,
        policy: Policy,
    ) -> Result<Vec<Digest>> {
        self.sweep();
        let mut started = Vec::new();
        // In the order of their names, as everybody does: so nobody waits for one who waits for him.
        for (diff_id, layer) in missing {
            if let Some(workplace) = self.claim(&diff_id)? {
                started.push((layer, workplace));
            }
        }
        step("store: partial made");
        let fill = |(layer, workplace): &(&Layer, PartialTree<'_>)| {
            source.layer(layer, &mut |blob| {
                workplace
                    .fill(blob, layer, self.bounds, policy)
                    .map_err(|error| error.context(format_args!("unpacking layer {}", layer.digest)))
            })
        };
        let flush =
            || syncfs(&self.dir).map_err(|error| Error::system(format!("syncing unpacked layers: {error}")));
        // The disk is kept busy while others are unpacked. What counts is the last call, for all files of all of them, before the names
        // that make them count.
        parallel::each_and_after(&started, fill, flush)?;
        flush()?;
        step("store: trees synced");
        started.iter().try_for_each(|(_, workplace)| workplace.finish())?;
        sync(&self.dir).context("naming unpacked layers")?;
        Ok(started.iter().map(|(layer, _)| layer.diff_id).collect())
    }

    /// An empty directory of our own to unpack in, or nothing where the tree is there meanwhile. Waits for whoever unpacks the same
    /// layer; what a killed one left is removed.
    fn claim(&self, diff_id: &Digest) -> Result<Option<PartialTree<'_>>> {
        let name = tree_name(diff_id);
        let partial = format!("{name}.partial");
        loop {
            make_dir(&self.dir, &partial)?;
            let dir = match open_dir(&self.dir, &partial) {
                Err(error) if error.kind() == Kind::Integrity => continue,
                other => other?,
            };
            take(&dir, FlockOperation::LockExclusive)?;
            if self.dir.symlink_metadata(&name).is_ok() {
                // The one we waited for is done; if this is not its workplace, it is one that we have just made.
                if is_at(&dir, &self.dir, &partial) {
                    let _ = self.dir.remove_dir_all(&partial);
                }
                return Ok(None);
            }
            if !is_at(&dir, &self.dir, &partial) {
                continue;
            }
            let workplace = PartialTree { trees: &self.dir, dir, name, partial };
            let doing = || "removing what a killed unpacking left";
            for entry in workplace.dir.entries().context(doing())? {
                let name = entry.context(doing())?.file_name();
                remove(&workplace.dir, &name.to_string_lossy()).context(doing())?;
            }
            return Ok(Some(workplace));
        }
    }

    /// Verifies a tree. Where the quick way finds a change, the full way says whether it matters.
    pub fn verify(&self, tree: &Tree, how: Verify) -> Result<Level> {
        let work = || -> Result<Level> {
            let root = tree.open_root()?;
            let record = || open(&tree.dir, "record");
            if how == Verify::Quick {
                let quickly = open(&tree.dir, "stamps")
                    .and_then(|stamps| tree::verify_quickly(&root, &record()?, &tree.seal, &stamps));
                if quickly.is_ok() {
                    return Ok(Level::Quick);
                }
            }
            if how == Verify::FsVerity {
                self.verify_held(tree, &root)?;
                return Ok(Level::FsVerity);
            }
            tree::verify(&root, &record()?, &tree.seal)?;
            if how == Verify::Quick {
                write_stamps(&tree.dir, &tree.seal)?;
            }
            Ok(Level::Full)
        };
        work().map_err(|error| self.damaged(&tree.diff_id, error))
    }

    /// An error of a tree that is there, with how it is made anew.
    fn damaged(&self, diff_id: &Digest, error: Error) -> Error {
        let remedy = format!(
            "run `invarlock runtime image build` where it is the default image's, else `invarlock runtime image verify --repair`, \
             which unpacks it anew, or remove {}",
            self.place(&tree_name(diff_id)).display()
        );
        error.context(format_args!("tree of layer {diff_id}")).with_hint_if(Kind::Integrity, remedy)
    }

    /// Where the kernel does not hold a tree's files, or not as was noted, it is told to, and then they are proven to be the right ones.
    fn verify_held(&self, tree: &Tree, root: &Dir) -> Result<()> {
        let record = || open(&tree.dir, "record");
        if let Some(digests) = &tree.seal.verity {
            let held = open(&tree.dir, "verity")
                .and_then(|list| verity::verify(root, &record()?, &tree.seal, &list, digests));
            if held.is_ok() {
                return Ok(());
            }
        }
        let holding =
            write_beside(&tree.dir, "verity", |file| verity::hold(root, &record()?, &tree.seal, file));
        if matches!(&holding, Err(error) if error.kind() == Kind::Unsupported) {
            return holding.map(drop);
        }
        // What is wrong with the tree explains why it could not be held, too.
        tree::verify(root, &record()?, &tree.seal)?;
        let digests = holding?;
        write_stamps(&tree.dir, &tree.seal)?;
        let seal = Seal { verity: Some(digests), ..tree.seal };
        // In the tree's own directory, whose lock is held: beside it, somebody who unpacks would take it for what a killed one left.
        let own = format!("seal.{}", random());
        write_verified(&tree.dir, &own, |file| write_seal(&seal, file))?;
        let doing = || "sealing a tree anew";
        tree.dir.rename(own, &self.dir, format!("{}.seal", tree_name(&tree.diff_id))).context(doing())?;
        sync(&self.dir).context(doing())
    }

    /// Takes a tree out of the way, and away unless somebody still uses it.
    pub fn discard(&self, diff_id: &Digest) -> Result<()> {
        let name = tree_name(diff_id);
        match self.dir.rename(&name, &self.dir, format!("{name}.tmp-{}", random())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.context(format_args!("removing the tree of layer {diff_id}"))?,
        }
        step("gc: tree put aside");
        let _ = self.dir.remove_file(format!("{name}.seal"));
        self.sweep();
        step("gc: tree removed");
        Ok(())
    }

    /// Whether nobody uses the tree.
    pub fn is_unused(&self, diff_id: &Digest) -> bool {
        open_dir(&self.dir, &tree_name(diff_id))
            .is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    /// Removes what processes that were killed left behind, and trees that were put aside: all that nobody holds. What cannot be removed
    /// is left for the next time.
    pub fn sweep(&self) {
        for name in self.names().unwrap_or_default() {
            if !name.ends_with(".partial") && !name.contains(".tmp-") {
                continue;
            }
            // Nothing that is no directory or file is ours, and nobody can hold it.
            let foreign = self.dir.symlink_metadata(&name).is_ok_and(|it| !it.is_dir() && !it.is_file());
            let held = invarlock_security::abandoned(&self.place(&name));
            if foreign || held.is_some() {
                let _ = remove(&self.dir, &name);
            }
        }
    }

    /// Removes seals without a tree. Nobody unpacks.
    pub fn remove_seals(&self) -> Result<()> {
        for name in self.names()? {
            if name.strip_suffix(".seal").is_some_and(|tree| self.dir.symlink_metadata(tree).is_err()) {
                remove(&self.dir, &name).context("removing the seal of a tree that is gone")?;
            }
        }
        Ok(())
    }

    /// Bytes on disk of a thing that [`Trees::names`] gave.
    pub fn size(&self, name: &str) -> u64 {
        fn below(dir: &Dir, name: &str, depth: usize) -> u64 {
            let Ok(metadata) = dir.symlink_metadata(name) else { return 0 };
            use cap_std::fs::MetadataExt as _;
            let own = metadata.blocks() * 512
                / metadata.nlink().max(1).min(if metadata.is_dir() { 1 } else { u64::MAX });
            match metadata.is_dir() && depth < crate::archive::DEEPEST + 4 {
                true => {
                    own + open_dir(dir, name).ok().map_or(0, |inner| {
                        let entries = inner.entries().into_iter().flatten().flatten();
                        entries.map(|it| below(&inner, &it.file_name().to_string_lossy(), depth + 1)).sum()
                    })
                }
                false => own,
            }
        }
        below(&self.dir, name, 0)
    }
}

/// Where a layer is unpacked. It goes with this value, and with it the lock.
struct PartialTree<'a> {
    trees: &'a Dir,
    dir: Dir,
    name: String,
    partial: String,
}

impl PartialTree<'_> {
    /// Unpacks `blob` and seals what comes of it.
    fn fill(&self, blob: &mut LayerReader<'_>, layer: &Layer, bounds: Bounds, policy: Policy) -> Result<()> {
        make_dir(&self.dir, "tree")?;
        let dir = open_dir(&self.dir, "tree")?;
        make_dir(&dir, "root")?;
        let root = open_dir(&dir, "root")?;
        let seal = write_beside(&dir, "record", |file| unpack(blob, layer, &root, file, bounds, policy))?;
        step("store: layer unpacked");
        write_stamps(&dir, &seal)?;
        write_beside(&self.dir, "seal", |file| write_seal(&seal, file))?;
        step("store: record sealed");
        Ok(())
    }

    /// Gives what is sealed and synced its name.
    fn finish(&self) -> Result<()> {
        let doing = || format!("naming unpacked layer {}", self.name);
        // Beside the tree, so that whoever alters the tree alone is found out.
        self.dir.rename("seal", self.trees, format!("{}.seal", self.name)).context(doing())?;
        step("store: seal beside");
        self.dir.rename("tree", self.trees, &self.name).context(doing())?;
        step("store: tree named");
        Ok(())
    }
}

impl Drop for PartialTree<'_> {
    fn drop(&mut self) {
        // The lock is let go after this, so the next one finds nothing, or waits for a workplace of its own.
        let _ = self.trees.remove_dir_all(&self.partial);
    }
}

fn write_stamps(dir: &Dir, seal: &Seal) -> Result<()> {
    std::thread::sleep(TICK);
    let (root, record) = (open_dir(dir, "root")?, open(dir, "record")?);
    write_beside(dir, "stamps", |file| tree::write_stamps(&root, &record, seal, file))
}

fn write_seal(seal: &Seal, to: &mut File) -> Result<()> {
    let text = serde_json::to_vec(seal)
        .map_err(|error| Error::system(format!("writing the seal of a tree: {error}")))?;
    to.write_all(&text).context("writing the seal of a tree")
}

fn remove(dir: &Dir, name: &str) -> std::io::Result<()> {
    match dir.symlink_metadata(name)?.is_dir() {
        true => dir.remove_dir_all(name),
        false => dir.remove_file(name),
    }
}

fn take(file: impl AsFd, how: FlockOperation) -> Result<()> {
    loop {
        match flock(&file, how) {
            Err(Errno::INTR) => {}
            other => {
                return other
                    .map_err(|error| Error::system(format!("waiting for the lock of a tree: {error}")));
            }
        }
    }
}

/// Whether the name still leads to it.
fn is_at(this: impl AsFd, dir: &Dir, name: &str) -> bool {
    let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    fstat(this).is_ok_and(|this| there.is_ok_and(|it| (it.st_dev, it.st_ino) == (this.st_dev, this.st_ino)))
}
