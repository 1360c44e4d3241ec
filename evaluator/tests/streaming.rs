//! The losses do not depend on threads, on blocks of windows, or on whether the weights stay in memory.

use std::path::PathBuf;
use std::sync::Mutex;

use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::{Memory, Workers};
use invarlock_evaluator::model::{Example, Model};

/// Windows of many lengths, some of them longer than a group.
fn windows(vocab: usize) -> Vec<Vec<u32>> {
    let lengths = [64, 2, 33, 64, 17, 64, 64, 64, 64, 64, 5, 64, 64, 64, 64, 40, 64, 64, 64, 64];
    let id = |i: usize| ((i * 7919 + i / 3) % vocab) as u32;
    lengths.iter().enumerate().map(|(w, n)| (0..*n).map(|i| id(w * 1000 + i)).collect()).collect()
}

#[test]
fn same_bits_for_any_threads_blocks_and_resident_weights() {
    let quantised = "evaluator/tests/fixtures/weights/ct-int8-channel";
    let plain = ["gpt2-gelu-new", "llama-bf16", "llama-sharded", "qwen2-sliding"];
    for name in plain.map(|name| format!("tests/reference/{name}")).iter().chain([&quantised.to_owned()]) {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let checkpoint = Checkpoint::open(&directory).expect(name);
        let model = Model::load(&checkpoint, 64).expect(name);
        let windows = windows(model.info.vocab_size);
        let examples: Vec<Example<'_>> = windows.iter().map(|w| Example::causal(w)).collect();
        let total: usize = windows.iter().map(Vec::len).sum();
        let losses = |threads, memory: Option<Memory>| {
            let workers = Workers::new(Some(threads)).expect("started");
            let workers = match memory {
                Some(memory) => workers.with_memory(memory),
                None => workers,
            };
            assert_eq!(workers.keeps(&model), memory.is_none(), "{name}");
            let reported = Mutex::new(Vec::new());
            let report = |done| reported.lock().expect("not poisoned").push(done);
            let losses: Vec<u64> =
                workers.losses(&model, &examples, &report).iter().map(|loss| loss.to_bits()).collect();
            let reported = reported.into_inner().expect("not poisoned");
            assert_eq!(reported.iter().max(), Some(&(total as u64)), "{name}: all tokens are reported");
            assert!(reported.len() > model.layers(), "{name}: layers are reported");
            losses
        };
        let expected = losses(1, None);
        assert_eq!(expected.len(), examples.len());
        for threads in [1, 2, 4] {
            assert_eq!(losses(threads, None), expected, "{name}: {threads} threads");
            for block in [1, 600, 1 << 20] {
                let memory = Memory { resident: 0, block, state: 1 << 30 };
                assert_eq!(losses(threads, Some(memory)), expected, "{name}: {threads} threads, {memory:?}");
            }
        }
    }
}
