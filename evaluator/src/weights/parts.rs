//! Takes tensors out of a checkpoint by name, type and shape, and records which were taken.

use std::collections::BTreeSet;
use std::path::Display;

use super::Floats;
use crate::checkpoint::{Checkpoint, Dtype, FLOAT_WEIGHTS, Tensor, Tensors};
use invarlock_error::{Error, Result, bail};

/// The tensors of a checkpoint, and which of them were taken.
#[derive(Debug)]
pub struct Parts<'a> {
    checkpoint: &'a Checkpoint,
    names: BTreeSet<String>,
    taken: Vec<(String, Tensor<'a>)>,
}

impl<'a> Parts<'a> {
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, names: BTreeSet::new(), taken: Vec::new() }
    }

    /// The directory, for messages.
    pub fn place(&self) -> Display<'a> {
        self.checkpoint.directory().display()
    }

    /// Whether a tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.tensors.contains(name)
    }

    /// A tensor that may be absent; it does not count as taken.
    pub fn get(&self, name: &str) -> Result<Option<Tensor<'a>>> {
        self.checkpoint.tensors.get(name)
    }

    /// A tensor with one of these shapes, of any type.
    pub fn take(&mut self, name: &str, shapes: &[&[usize]]) -> Result<Tensor<'a>> {
        let Some(tensor) = self.get(name)? else {
            let missing = match self.checkpoint.tensors.is_absent(name) {
                true => "the index names it, but no file contains it",
                false => "it is missing",
            };
            let error = format!("{}: config.json requires the tensor {name}: {missing}", self.place());
            return Err(match self.saved_otherwise(name) {
                Some((found, hint)) => Error::input(format!("{error}; {found}")).with_hint(hint),
                None => Error::input(error),
            });
        };
        if !shapes.contains(&tensor.shape) {
            let wanted: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
            bail!(
                Input,
                "{}: tensor {name} has shape {:?}, but config.json requires {}",
                self.place(),
                tensor.shape,
                wanted.join(" or ")
            );
        }
        if self.names.insert(name.to_owned()) {
            self.taken.push((name.to_owned(), tensor));
        }
        Ok(tensor)
    }

    /// What the names of the tensors are like, if the model was saved in another state than the one that is measured, and what to do.
    fn saved_otherwise(&self, name: &str) -> Option<(String, &'static str)> {
        let prefixes = [
            ("_orig_mod.", "the weights of a compiled model were saved: save those of `model._orig_mod`"),
            ("module.", "the weights of a parallel wrapper were saved: save those of `model.module`"),
            (
                "base_model.model.",
                "a model with an adapter of PEFT was saved: save `model.merge_and_unload()`, or save the adapter alone and pass it as --subject",
            ),
        ];
        let wrapped = prefixes.into_iter().find(|(prefix, _)| self.contains(&format!("{prefix}{name}")));
        let pruned = || ["_orig", "_mask"].iter().all(|end| self.contains(&format!("{name}{end}")));
        match wrapped {
            Some((prefix, hint)) => Some((format!("the names of its tensors start with {prefix}"), hint)),
            None => pruned().then(|| {
                (
                    format!("{name}_orig and {name}_mask are there instead"),
                    "the weights were saved while they were being pruned: call `torch.nn.utils.prune.remove` for each, and save again",
                )
            }),
        }
    }

    /// A tensor with one of these types and shapes.
    pub fn take_of(&mut self, name: &str, dtypes: &[Dtype], shapes: &[&[usize]]) -> Result<Tensor<'a>> {
        let tensor = self.take(name, shapes)?;
        if !dtypes.contains(&tensor.dtype) {
            let wanted: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
            bail!(
                Input,
                "{}: tensor {name} has dtype {}, but config.json requires {}",
                self.place(),
                tensor.dtype.name(),
                wanted.join(" or ")
            );
        }
        Ok(tensor)
    }

    /// A tensor of floating-point numbers.
    pub fn floats(&mut self, name: &str, shapes: &[&[usize]]) -> Result<Floats<'a>> {
        let tensor = self.take(name, shapes)?;
        self.as_floats(name, tensor)
    }

    /// The numbers of a tensor, or of a part of it.
    pub fn as_floats(&self, name: &str, tensor: Tensor<'a>) -> Result<Floats<'a>> {
        Floats::new(tensor).ok_or_else(|| {
            let found = tensor.dtype.name();
            let place = self.place();
            Error::unsupported(format!(
                "{place}: tensor {name} has dtype {found}, but config.json requires floating-point numbers"
            ))
            .with_hint(FLOAT_WEIGHTS)
        })
    }

    /// A tensor of 32-bit words.
    pub fn words(&mut self, name: &str, shape: &[usize]) -> Result<&'a [[u8; 4]]> {
        Ok(self.take_of(name, &[Dtype::I32], &[shape])?.bytes.as_chunks().0)
    }

    /// A few integers of 32 or 64 bits.
    pub fn integers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let tensor = self.take_of(name, &[Dtype::I32, Dtype::I64], &[shape])?;
        Ok(match tensor.dtype {
            Dtype::I64 => tensor.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            _ => tensor.bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        })
    }

    /// One integer.
    pub fn small_integer(&mut self, name: &str, shapes: &[&[usize]]) -> Result<i64> {
        let tensor = self.take_of(name, &[Dtype::I8, Dtype::I32, Dtype::I64], shapes)?;
        let mut bytes = [if tensor.bytes.last() >= Some(&0x80) { 0xff } else { 0 }; 8];
        bytes[..tensor.bytes.len()].copy_from_slice(tensor.bytes);
        Ok(i64::from_le_bytes(bytes))
    }

    /// The group of each input, from a tensor of indices below `groups`.
    pub fn group_index(&mut self, name: &str, inputs: usize, groups: usize) -> Result<Vec<u32>> {
        let index = self.integers(name, &[inputs])?;
        let check = |(input, group): (usize, i64)| match u32::try_from(group)
            .ok()
            .filter(|group| (*group as usize) < groups)
        {
            Some(group) => Ok(group),
            None => {
                bail!(
                    Input,
                    "{}: tensor {name} has {group} for input {input}, but there are {groups} groups",
                    self.place()
                )
            }
        };
        index.into_iter().enumerate().map(check).collect()
    }

    /// Records that a tensor is known and not needed.
    pub fn skip(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    /// The names of tensors that were not taken.
    pub fn rest(&self) -> impl Iterator<Item = &'a str> {
        self.checkpoint.tensors.names().filter(|name| !self.names.contains(*name))
    }

    /// Number of tensors that were taken so far.
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// The bytes of the tensors that were taken after the first `count`.
    pub fn taken_since(&self, count: usize) -> Vec<&'a [u8]> {
        self.taken[count..].iter().map(|(_, tensor)| tensor.bytes).collect()
    }

    /// The tensors of the checkpoint.
    pub fn tensors(&self) -> &'a Tensors {
        &self.checkpoint.tensors
    }

    /// The tensors that were taken, by their names in the checkpoint.
    pub fn into_taken(self) -> Vec<(String, Tensor<'a>)> {
        self.taken
    }
}

/// Number of groups of `size` inputs. An error where they do not divide.
pub fn groups(place: Display<'_>, module: &str, inputs: usize, size: usize) -> Result<usize> {
    if size == 0 || !inputs.is_multiple_of(size) {
        bail!(
            Input,
            "{place}: {module} has {inputs} inputs, which is not a multiple of the group size {size}"
        );
    }
    Ok(inputs / size)
}
