//! `evaluate --image` with a stand-in for InvarLock's Python package, which answers with reports that the package wrote once.

use crate::layout::Layout;
use crate::{As, Place, Ran, fixtures, program, small};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The reference of the image.
pub const NAME: &str = "python:1";
const VERSION: &str = "InvarLock 0.12.1 · schema=v1\n";
/// A preset.
pub const PRESET: &str = "# texts/valid.jsonl\ndataset:\n  provider: {kind: local_jsonl, file: 'valid.jsonl'}\n  seq_len: 128 # a comment\n";

/// A place with two checkpoints, a preset, and images with the stand-in.
pub struct Stand {
    /// The place.
    pub place: Place,
    layout: Layout,
}

impl Stand {
    /// As this user.
    pub fn new(user: As) -> Self {
        Stand::with(user, VERSION)
    }

    /// Its program states this version.
    pub fn with(user: As, version: &str) -> Self {
        let place = small::place_of(user);
        place.write("valid.jsonl", b"{\"text\": \"some text\"}\n");
        place.write("preset.yaml", PRESET.as_bytes());
        let reports = tempfile::tempdir().unwrap();
        fixtures::extract("reports-0.12.1.tar.zst", reports.path());
        let case = |name: &str| reports.path().join("0.12.1").join(name);
        let fill = |rootfs: &Path| {
            fs::create_dir(rootfs.join("reports")).unwrap();
            fs::copy(program("invarlock-stand-in"), rootfs.join("python")).unwrap();
            fs::write(rootfs.join("version"), version).unwrap();
            let copy = |from: PathBuf, to: &str| _ = fs::copy(from, rootfs.join("reports").join(to)).unwrap();
            copy(case("gpt2-int8-ci-container").join("evaluation.report.json"), "pass.json");
            copy(case("gpt2-damaged-ci-container").join("evaluation.report.json"), "fail.json");
            copy(case("gpt2-int8-ci-container").join("source.report.json"), "source.json");
        };
        let stand = Stand { layout: Layout::of_tree(&place, "image", fill), place };
        stand.import(NAME, &json!({"Entrypoint": ["python"], "Env": ["PATH=/", "HOME=/tmp", "TMPDIR=/x"], "Labels": label("delegate")}));
        stand
    }

    /// Imports an image with this configuration.
    pub fn import(&self, name: &str, config: &Value) {
        let reference = self.layout.image(&name.replace(':', "-"), config);
        self.place.run(&["runtime", "image", "import", &reference, name]).expect(0);
    }

    /// `evaluate` with the image and the preset, unless the options name others.
    pub fn command(&self, options: &[&str]) -> Command {
        let models = ["evaluate", "--baseline", "base", "--subject", "subject", "--report-out", "eval"];
        let image = if options.contains(&"--image") { &[][..] } else { &["--image", NAME] };
        let preset = if options.contains(&"--preset") { &[][..] } else { &["--preset", "preset.yaml"] };
        self.place.command(&[&models[..], image, preset, options].concat())
    }

    /// Runs the command.
    pub fn evaluate(&self, options: &[&str]) -> Ran {
        Ran::from(self.command(options).output().unwrap())
    }

    /// A file of the evidence.
    pub fn evidence(&self, name: &str) -> PathBuf {
        self.place.work("eval").join(name)
    }

    /// The directory of everything that the program left.
    pub fn left(&self, output: &Value) -> PathBuf {
        self.place.work(output["left"].as_str().unwrap())
    }

    /// Fails unless nothing was written.
    #[track_caller]
    pub fn no_evidence(&self) {
        assert_eq!(self.place.names("work/eval"), Vec::<String>::new());
    }
}

/// The label of an image that speaks this.
pub fn label(speaks: &str) -> Value {
    json!({"org.invarlock.speaks": speaks})
}
