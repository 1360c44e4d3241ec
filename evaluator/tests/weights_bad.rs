//! Quantised checkpoints whose tensors or configuration are wrong: one message that names the tensor, and what is wanted and found.

use std::fs;
use std::path::{Path, PathBuf};

use invarlock_error::{Error, Kind};
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Arithmetic, Example, Model};
use invarlock_evidence::format::objective::Objective;
use safetensors::Dtype;
use serde_json::{Value, json};

#[path = "common/changed.rs"]
mod changed;

use changed::{Changed, Stored};

impl Changed {
    /// The first tensor whose name ends in this way.
    pub fn tensor(&mut self, end: &str) -> &mut Stored {
        self.tensors.iter_mut().find(|(name, _)| name.ends_with(end)).expect("the tensor").1
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// Changes a fixture, which is valid before, and expects an error of this kind with these words.
#[track_caller]
fn rejected(name: &str, change: impl FnOnce(&mut Changed), kind: Kind, words: &[&str]) {
    let mut changed = Changed::open("weights", name);
    changed.load().expect("the fixture is valid");
    change(&mut changed);
    let error = changed.load().expect_err("an error");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{error} lacks {word:?}");
    }
}

fn set_first(tensor: &mut Stored, number: &[u8]) {
    tensor.2[..number.len()].copy_from_slice(number);
}

#[test]
fn wrong_shapes_and_types_name_the_tensor() {
    for (name, end) in [
        ("ct-pack-w4-group", "q_proj.weight_packed"),
        ("ct-pack-w4-asymmetric", "q_proj.weight_zero_point"),
        ("ct-int8-channel", "q_proj.weight_scale"),
        ("ct-fp8-block", "q_proj.weight_scale"),
        ("fp8-block", "q_proj.weight_scale_inv"),
        ("gptq-w4", "q_proj.qweight"),
        ("gptq-w4", "q_proj.qzeros"),
        ("awq-gemm", "q_proj.scales"),
        ("bnb-int8", "q_proj.SCB"),
        ("bnb-nf4", "q_proj.weight.absmax"),
        ("bnb-nf4-double", "q_proj.weight.nested_quant_map"),
        ("hqq-w4-axis1", "q_proj.W_q"),
        ("mxfp4-gpt-oss", "down_proj_scales"),
        ("ct-sparse-bitmask", "q_proj.weight.bitmask"),
    ] {
        let shape = |c: &mut Changed| c.tensor(end).1.extend([1, 1]);
        rejected(name, shape, Kind::Input, &[end, "has shape", "requires"]);
        let missing = |c: &mut Changed| c.tensors.retain(|name, _| !name.ends_with(end));
        let mut changed = Changed::open("weights", name);
        missing(&mut changed);
        let error = changed.load().expect_err("an error");
        assert!(error.message().contains(end) && error.message().contains("missing"), "{error}");
    }
    let dtype = |c: &mut Changed| c.tensor("q_proj.weight").0 = Dtype::U8;
    rejected("ct-int8-channel", dtype, Kind::Input, &["q_proj.weight has dtype uint8", "requires int8"]);
    rejected("fp8-block", dtype, Kind::Input, &["q_proj.weight has dtype uint8", "requires float8_e4m3fn"]);
}

#[test]
fn wrong_groups_and_indices_are_found() {
    for (name, end) in
        [("ct-pack-w4-act-order", "q_proj.weight_g_idx"), ("gptq-w4-act-order", "q_proj.g_idx")]
    {
        for bad in [2i32, -1, i32::MAX] {
            let change = |c: &mut Changed| set_first(c.tensor(end), &bad.to_le_bytes());
            rejected(name, change, Kind::Input, &[end, &bad.to_string(), "input 0", "2 groups"]);
        }
    }
    let size = |c: &mut Changed| {
        c.config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = json!(48);
    };
    rejected("ct-pack-w4-group", size, Kind::Input, &["64 inputs", "group size 48"]);
    let size = |c: &mut Changed| c.config["quantization_config"]["group_size"] = json!(48);
    rejected("gptq-w4", size, Kind::Input, &["64 inputs", "group size 48"]);
    let bits = |c: &mut Changed| c.config["quantization_config"]["bits"] = json!(8);
    rejected("gptq-w4", bits, Kind::Input, &["qweight has shape [8, 64]", "requires [16, 64]"]);
    let scale = |c: &mut Changed| set_first(c.tensor("down_proj_scales"), &[255]);
    rejected("mxfp4-gpt-oss", scale, Kind::Input, &["down_proj_scales has 255"]);
}

#[test]
fn wrong_scales_of_inputs_are_found() {
    let (scale, zero) = ("q_proj.input_scale", "q_proj.input_zero_point");
    for (bad, shown) in [(0.0f32, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let change = |c: &mut Changed| set_first(c.tensor(scale), &bad.to_le_bytes());
        rejected(
            "ct-int8-inputs-static",
            change,
            Kind::Input,
            &[scale, &format!("is {shown}"), "above zero"],
        );
    }
    for end in [scale, zero] {
        let missing = |c: &mut Changed| c.tensors.retain(|name, _| !name.ends_with(end));
        rejected("ct-int8-inputs-static", missing, Kind::Input, &[end, "missing"]);
        let shape = |c: &mut Changed| c.tensor(end).1.extend([1, 1]);
        rejected("ct-int8-inputs-static", shape, Kind::Input, &[end, "has shape"]);
    }
    let narrow = |c: &mut Changed| *inputs(c, "num_bits") = json!(3);
    rejected("ct-int8-inputs-static", narrow, Kind::Input, &[zero, "is -7", "from -4 to 3"]);
    let missing = |c: &mut Changed| c.tensors.retain(|name, _| !name.ends_with("q_proj.activation_scale"));
    rejected("fp8-tensor-static", missing, Kind::Input, &["q_proj.activation_scale", "missing"]);
    let size = |c: &mut Changed| *inputs(c, "group_size") = json!(48);
    rejected("ct-fp8-block", size, Kind::Input, &["64 inputs", "group size 48"]);
}

/// A member of the first scheme's `input_activations`.
fn inputs<'c>(changed: &'c mut Changed, key: &str) -> &'c mut Value {
    &mut changed.config["quantization_config"]["config_groups"]["group_0"]["input_activations"][key]
}

#[test]
fn inputs_whose_arithmetic_is_not_defined_are_refused() {
    let group = "group_0";
    for (name, key, value) in [
        ("ct-int8-channel", "strategy", json!("tensor")),
        ("ct-int8-channel", "dynamic", json!("local")),
        ("ct-int8-channel", "dynamic", json!(false)),
        ("ct-int8-channel", "scale_dtype", json!("torch.float8_e4m3fn")),
        ("ct-fp8-tensor", "num_bits", json!(4)),
        ("ct-fp8-tensor", "symmetric", json!(false)),
    ] {
        let change = |c: &mut Changed| *inputs(c, key) = value;
        rejected(name, change, Kind::Unsupported, &["config.json asks for inputs in"]);
    }
    let outputs = |c: &mut Changed| {
        let scheme = &mut c.config["quantization_config"]["config_groups"][group];
        scheme["output_activations"] = scheme["input_activations"].clone();
    };
    rejected("ct-int8-channel", outputs, Kind::Unsupported, &["inputs in int8, dynamic; outputs in int8"]);
    let mut changed = Changed::open("weights", "bnb-int8");
    changed.weight_only = false;
    let error = changed.load().expect_err("an error");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("outliers"), "{error}");
}

#[test]
fn lying_counts_of_sparse_tensors_are_found() {
    let offset = |c: &mut Changed| {
        let (_, _, bytes) = c.tensor("q_proj.weight.row_offsets");
        bytes[8..16].copy_from_slice(&i64::MAX.to_le_bytes());
    };
    rejected("ct-sparse-bitmask", offset, Kind::Input, &["row_offsets has 9223372036854775807 for row 1"]);
    let bits = |c: &mut Changed| {
        let (_, _, bytes) = c.tensor("q_proj.weight.bitmask");
        if let Some(last) = bytes.last_mut() {
            *last = !*last;
        }
    };
    rejected("ct-sparse-bitmask", bits, Kind::Input, &["q_proj.weight.compressed has shape"]);
    let shape = |c: &mut Changed| set_first(c.tensor("q_proj.weight.shape"), &65i64.to_le_bytes());
    rejected("ct-sparse-bitmask", shape, Kind::Input, &["q_proj.weight.shape says [65, 64]"]);
}

#[test]
fn wrong_descriptions_of_4_bit_tensors_are_found() {
    let end = "q_proj.weight.quant_state.bitsandbytes__nf4";
    let state = |json: Value| {
        move |c: &mut Changed| {
            let bytes = json.to_string().into_bytes();
            *c.tensor(end) = (Dtype::U8, vec![bytes.len()], bytes);
        }
    };
    for (json, words) in [
        (json!({"quant_type": "nf4", "blocksize": 64, "shape": [64, 63]}), "requires [64, 64]"),
        (json!({"quant_type": "fp4", "blocksize": 64, "shape": [64, 64]}), "says fp4"),
        (json!({"quant_type": "nf4", "blocksize": 0, "shape": [64, 64]}), "blocks of 0"),
        (json!({"quant_type": "nf4", "blocksize": 128, "shape": [64, 64]}), "absmax has shape [64]"),
        (
            json!({"quant_type": "nf4", "blocksize": 64, "shape": [64, 64], "nested_blocksize": 0}),
            "nested_blocksize",
        ),
        (json!([]), "not the expected JSON"),
    ] {
        rejected("bnb-nf4", state(json), Kind::Input, &[words]);
    }
}

#[test]
fn configurations_that_contradict_the_tensors_are_refused() {
    let ignored = |c: &mut Changed| c.config["quantization_config"]["ignore"] = json!(["re:.*q_proj"]);
    rejected(
        "ct-pack-w4-group",
        ignored,
        Kind::Input,
        &["layers.0.self_attn.q_proj is not quantised", "weight_packed exists"],
    );
    let plain = |c: &mut Changed| {
        c.config["quantization_config"] =
            Changed::open("weights", "awq-gemm").config["quantization_config"].clone();
    };
    rejected("dense-f16", plain, Kind::Input, &["q_proj is quantised (awq", "qweight is missing"]);
}

#[test]
fn unsupported_options_are_named() {
    let group = |key: &'static str, value: Value| {
        move |c: &mut Changed| {
            c.config["quantization_config"]["config_groups"]["group_0"]["weights"][key] = value;
        }
    };
    for (key, value, words) in [
        ("strategy", json!("token"), "config_groups.group_0.weights.strategy` \"token\""),
        ("num_bits", json!(9), "config_groups.group_0.weights.num_bits"),
        ("type", json!("float"), "float4"),
        ("rotation", json!("hadamard"), "config_groups.group_0.weights.rotation` is not supported"),
        ("actorder", json!("random"), "\"random\" is not supported"),
    ] {
        let mut changed = Changed::open("weights", "ct-pack-w4-group");
        group(key, value)(&mut changed);
        let error = changed.load().expect_err("an error");
        assert!(error.message().contains(words), "{error} lacks {words:?}");
    }
    let top =
        |key: &'static str, value: Value| move |c: &mut Changed| c.config["quantization_config"][key] = value;
    for (name, key, value) in [
        ("ct-pack-w4-group", "kv_cache_scheme", json!({"num_bits": 8})),
        ("ct-pack-w4-group", "format", json!("marlin-24")),
        ("ct-pack-w4-group", "quantization_status", json!("frozen")),
        ("ct-pack-w4-group", "transform_config", json!({"config_groups": {"a": {}}})),
        ("gptq-w4", "bits", json!(5)),
        ("gptq-w4", "checkpoint_format", json!("marlin")),
        ("gptq-w4", "dynamic", json!({"-:.*": {}})),
        ("awq-gemm", "version", json!("gemv")),
        ("awq-gemm", "bits", json!(8)),
        ("bnb-nf4", "bnb_4bit_quant_storage", json!("bfloat16")),
        ("fp8-block", "fmt", json!("e5m2")),
        ("mxfp4-gpt-oss", "block", json!(16)),
    ] {
        rejected(name, top(key, value), Kind::Unsupported, &[key]);
    }
}

#[test]
fn gguf_files_with_lying_counts_are_refused() {
    let bytes = fs::read(fixture("gguf-q4_0/model.gguf")).expect("the fixture");
    let load = |bytes: &[u8]| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("model.gguf"), bytes).expect("written");
        Checkpoint::open(directory.path()).and_then(|checkpoint| Model::load(&checkpoint, 8).map(|_| ()))
    };
    load(&bytes).expect("the fixture is valid");
    for (at, number, words) in [
        (0, u64::from(0x1234_5678u32), "does not start with GGUF"),
        (8, u64::MAX, "tensors; supported"),
        (16, u64::MAX, "metadata entries; supported"),
        (16, 60_000, "invalid GGUF file"),
        (24, u64::MAX, "bytes are needed"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let error = load(&bytes).expect_err("an error");
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.message().contains(words), "{error} lacks {words:?}");
    }
    // No prefix of the file is accepted, and none ends the program.
    for length in (1..bytes.len() - 1).step_by(997) {
        load(&bytes[..length]).expect_err("a truncated file");
    }
}

/// Opens and measures what a fuzz seed contains: a configuration (its length first, 2 bytes), and a file of weights.
fn measure_seed(bytes: &[u8]) -> Result<(), Error> {
    let short = || Error::input("short");
    let (length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let (config, weights) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or_else(short)?;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).expect("written");
    write("config.json", config);
    write(if weights.starts_with(b"GGUF") { "model.gguf" } else { "model.safetensors" }, weights);
    let checkpoint = Checkpoint::open(directory.path())?;
    let weight_only = Arithmetic { weight_only: true, ..Arithmetic::default() };
    let model = Model::load(&checkpoint, 3).or_else(|_| Model::load_with(&checkpoint, 3, weight_only))?;
    let fits = model.info.max_positions.is_none_or(|positions| positions >= 3);
    if fits && model.info.vocab_size >= 3 {
        let workers = Workers::new(Some(1))?;
        let labels = (model.info.objective != Objective::Causal).then_some(&[1, -100, 2][..]);
        let example = Example { tokens: &[1, 2, 0], labels };
        assert_eq!(workers.losses(&model, &[example], &|_| ()).len(), 1);
    }
    Ok(())
}

#[test]
fn damaged_files_are_refused_or_measured() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/checkpoint");
    // A fixed sequence of numbers (Knuth's MMIX generator).
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut seeds: Vec<PathBuf> =
        fs::read_dir(seeds).expect("the seeds").flatten().map(|e| e.path()).collect();
    seeds.sort();
    assert!(seeds.len() > 10);
    for seed in seeds {
        let bytes = fs::read(&seed).expect("readable");
        measure_seed(&bytes).unwrap_or_else(|error| panic!("{}: {error}", seed.display()));
        for _ in 0..200 {
            let mut bytes = bytes.clone();
            // Most of a header lies within the first bytes.
            for _ in 0..=next(3) {
                let at = next(bytes.len().min(6000));
                bytes[at] = [next(256) as u8, bytes[at] ^ 1 << next(8), 0xff, b'9'][next(4)];
            }
            let _ = measure_seed(&bytes);
        }
    }
}
