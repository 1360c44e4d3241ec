//! The first hidden states: embeddings of tokens, of their types and of their positions.

use crate::math::activation::{add, scale};
use crate::math::gemm::{View, ViewMut};
use crate::model::loader::Loader;
use crate::model::matrix::{Layout, Linear, Matrix};
use crate::model::norm::Norm;
use crate::model::outputs::Outputs;
use crate::model::scratch::{Work, row_blocks, sized};
use crate::model::spec;
use invarlock_error::Result;

/// The embeddings with their weights.
#[derive(Debug)]
pub struct Embedding<'a> {
    /// Name of the module of the token embedding.
    module: String,
    tokens: Matrix<'a>,
    width: usize,
    scale: f32,
    project_in: Option<Linear<'a>>,
    /// The embedding of the only type, and the name of its module.
    token_type: Option<(String, Vec<f32>)>,
    positions: Option<Positions<'a>>,
    norm: Option<Norm>,
    project_sum: Option<Linear<'a>>,
}

#[derive(Debug)]
struct Positions<'a> {
    module: String,
    table: Matrix<'a>,
    first: usize,
    padding: Option<usize>,
}

impl<'a> Embedding<'a> {
    /// Takes all tensors but the token embedding.
    pub fn load(
        spec: &spec::Embedding,
        tokens: Matrix<'a>,
        hidden_size: usize,
        loader: &mut Loader<'a, '_>,
    ) -> Result<Self> {
        let mut linear =
            |spec: &Option<spec::Linear>| spec.as_ref().map(|spec| loader.linear(spec)).transpose();
        let (project_in, project_sum) = (linear(&spec.project_in)?, linear(&spec.project_sum)?);
        let size = if project_sum.is_some() { spec.width } else { hidden_size };
        let token_type = match spec.token_types {
            None => None,
            Some((module, rows)) => {
                let mut types = loader.table(module, rows, size)?;
                types.truncate(size);
                Some((loader.module(module), types))
            }
        };
        let positions = match spec.positions {
            None => None,
            Some(spec::Positions { module, rows, first, padding }) => {
                let table = loader.matrix(&format!("{module}.weight"), size, rows, Layout::OutIn)?;
                Some(Positions { module: loader.module(module), table, first, padding })
            }
        };
        Ok(Self {
            module: loader.module(spec.tokens),
            tokens,
            width: spec.width,
            scale: spec.scale,
            project_in,
            token_type,
            positions,
            norm: spec.norm.as_ref().map(|norm| loader.norm(norm, size)).transpose()?,
            project_sum,
        })
    }

    /// The token embedding.
    pub fn tokens(&self) -> &Matrix<'a> {
        &self.tokens
    }

    /// The first hidden states of windows, which are laid end to end.
    pub fn run(&self, windows: &[&[u32]], hidden_size: usize, hidden: &mut [f32], work: &mut Work) {
        let Work { normed, row, panel, outputs, .. } = work;
        let ids: Vec<u32> = windows.concat();
        let Some(project_sum) = &self.project_sum else {
            match &self.project_in {
                None => self.lookup(&ids, hidden, outputs),
                Some(project_in) => {
                    for block in row_blocks(ids.len()) {
                        let rows = sized(normed, block.len() * self.width);
                        self.lookup(&ids[block.clone()], rows, outputs);
                        let out = &mut hidden[block.start * hidden_size..block.end * hidden_size];
                        let x = View::dense(rows, block.len(), self.width);
                        project_in.weight.apply(x, &mut ViewMut::dense(out, block.len(), hidden_size), panel);
                    }
                }
            }
            self.finish(windows, hidden_size, hidden, row, outputs);
            return;
        };
        let sums = sized(normed, ids.len() * self.width);
        self.lookup(&ids, sums, outputs);
        self.finish(windows, self.width, sums, row, outputs);
        let x = View::dense(sums, ids.len(), self.width);
        project_sum.weight.apply(x, &mut ViewMut::dense(hidden, ids.len(), hidden_size), panel);
        if let Some(bias) = &project_sum.bias {
            hidden.chunks_exact_mut(hidden_size).for_each(|row| add(row, bias));
        }
    }

    /// Adds the embeddings of types and positions, and normalises. `row` is working memory.
    fn finish(
        &self,
        windows: &[&[u32]],
        width: usize,
        sums: &mut [f32],
        row: &mut Vec<f32>,
        outputs: &mut Outputs,
    ) {
        if let Some((module, token_type)) = &self.token_type {
            for sum in sums.chunks_exact_mut(width) {
                add(sum, token_type);
                outputs.module(module, token_type, width);
            }
        }
        if let Some(positions) = &self.positions {
            let embedding = sized(row, width);
            let rows = windows.iter().flat_map(|window| positions.rows(window));
            for (sum, row) in sums.chunks_exact_mut(width).zip(rows) {
                positions.table.row(row, embedding);
                add(sum, embedding);
                outputs.module(&positions.module, embedding, width);
            }
        }
        if let Some(norm) = &self.norm {
            norm.replace(sums, width, row);
            norm.keep(sums, outputs);
        }
    }

    /// The embedding of each token, scaled.
    fn lookup(&self, ids: &[u32], out: &mut [f32], outputs: &mut Outputs) {
        for (row, id) in out.chunks_exact_mut(self.width).zip(ids) {
            self.tokens.row(*id as usize, row);
            if self.scale != 1.0 {
                scale(row, self.scale);
            }
        }
        outputs.module(&self.module, out, self.width);
    }
}

impl Positions<'_> {
    /// The row of each token of a window.
    fn rows(&self, window: &[u32]) -> impl Iterator<Item = usize> {
        let mut next = self.first;
        let padding = self.padding;
        window.iter().map(move |id| match padding {
            Some(padding) if *id as usize == padding => padding,
            _ => {
                next += 1;
                next - 1
            }
        })
    }
}
