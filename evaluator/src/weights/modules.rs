//! Lists of modules in configurations.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::checkpoint::Config;
use invarlock_error::{Result, bail};

/// Patterns of a list.
const MAX_PATTERNS: usize = 4096;
/// Bytes of a pattern, and of its compiled form.
const PATTERN_BYTES: usize = 4096;
const COMPILED_BYTES: usize = 1 << 20;

/// A list of module names or patterns.
#[derive(Debug)]
pub struct Modules(Vec<Pattern>);

#[derive(Debug)]
enum Pattern {
    /// The whole name.
    Name(String),
    /// An expression that matches the start of a name, as Python's `re.match`.
    Start(Regex),
    /// As transformers reads `modules_to_not_convert`: an expression that matches the start of the name up to the edge of a component, or the
    /// end of the name.
    Component(Regex, String),
}

impl Modules {
    /// A list as compressed-tensors reads it: names, and expressions after `re:`.
    pub fn compressed_tensors(config: &Config, key: &str) -> Result<Self> {
        Self::read(config, key, |text| match text.strip_prefix("re:") {
            Some(expression) => {
                compile(config, key, expression, &format!("\\A(?:{expression})")).map(Pattern::Start)
            }
            None => Ok(Pattern::Name(text.to_owned())),
        })
    }

    /// A list as transformers reads it.
    pub fn transformers(config: &Config, key: &str) -> Result<Self> {
        Self::read(config, key, |text| {
            let regex = compile(config, key, text, &format!("\\A(?:{text})\\z"))?;
            Ok(Pattern::Component(regex, text.to_owned()))
        })
    }

    fn read(config: &Config, key: &str, parse: impl Fn(&str) -> Result<Pattern>) -> Result<Self> {
        let Some(value) = config.get(key) else { return Ok(Self(Vec::new())) };
        let texts: Option<Vec<&str>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        let Some(texts) = texts.filter(|texts| texts.len() <= MAX_PATTERNS) else {
            return Err(config.wrong(key, &format!("a list of at most {MAX_PATTERNS} strings"), value));
        };
        Ok(Self(texts.into_iter().map(parse).collect::<Result<_>>()?))
    }

    /// Whether the list contains a module of this class and name.
    pub fn contains(&self, class: &str, module: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Name(name) => name == module || name == class,
            Pattern::Start(regex) => regex.is_match(module),
            Pattern::Component(regex, text) => {
                let edge = |i: &usize| {
                    *i == module.len() || module[*i..].starts_with('.') || module[..*i].ends_with('.')
                };
                let edges = module.char_indices().map(|(i, _)| i).chain([module.len()]).filter(edge);
                module.ends_with(text.as_str()) || edges.into_iter().any(|i| regex.is_match(&module[..i]))
            }
        })
    }
}

/// Numbers by patterns of the ends of module names, as PEFT's `rank_pattern` and `alpha_pattern`.
#[derive(Debug)]
pub struct Numbers(Vec<(Regex, f64)>);

impl Numbers {
    /// Reads an object of positive numbers.
    pub fn read(config: &Config, key: &str) -> Result<Self> {
        let Some(object) = config.object(key)? else { return Ok(Self(Vec::new())) };
        if object.keys().count() > MAX_PATTERNS {
            bail!(
                Unsupported,
                "{}: `{}` has more than {MAX_PATTERNS} patterns",
                config.name(),
                config.member(key)
            );
        }
        let entry = |pattern: &str| {
            let regex = compile(config, key, pattern, &format!("\\A(?:.*\\.)?(?:{pattern})\\z"))?;
            Ok((regex, object.required_positive(pattern)?))
        };
        Ok(Self(object.keys().map(entry).collect::<Result<_>>()?))
    }

    /// The number of the first pattern that matches.
    pub fn of(&self, module: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, number)| *number)
    }
}

fn compile(config: &Config, key: &str, text: &str, expression: &str) -> Result<Regex> {
    let compiled = (text.len() <= PATTERN_BYTES).then(|| {
        RegexBuilder::new(expression).size_limit(COMPILED_BYTES).dfa_size_limit(COMPILED_BYTES).build()
    });
    match compiled {
        Some(Ok(regex)) => Ok(regex),
        Some(Err(_)) | None => {
            let text: String = text.chars().take(80).collect();
            bail!(
                Unsupported,
                "{}: `{}` contains {text:?}, which is not a supported regular expression",
                config.name(),
                config.member(key)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::from_members(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn lists_match_as_their_libraries_do() {
        let c = config(
            r#"{"ct": ["lm_head", "re:.*mlp.gate$", "Conv1d"], "hf": ["layers.1", "model.layers.*.self_attn", "fc1"],
                "bad": ["re:(?=x)"], "long": 3}"#,
        );
        let ct = Modules::compressed_tensors(&c, "ct").expect("a list");
        for (class, name, found) in [
            ("Linear", "lm_head", true),
            ("Linear", "model.lm_head", false),
            ("Linear", "model.layers.0.mlp.gate", true),
            ("Linear", "model.layers.0.mlp.gate_proj", false),
            ("Conv1d", "any", true),
        ] {
            assert_eq!(ct.contains(class, name), found, "{name}");
        }
        let hf = Modules::transformers(&c, "hf").expect("a list");
        for (name, found) in [
            ("layers.1.q", true),
            ("layers.11.q", false),
            ("model.layers.3.self_attn.q_proj", true),
            ("model.layers.3.self_attn_norm", false),
            ("model.decoder.fc1", true),
            ("model.decoder.fc1.x", false),
        ] {
            assert_eq!(hf.contains("Linear", name), found, "{name}");
        }
        assert!(Modules::compressed_tensors(&c, "bad").is_err());
        assert!(Modules::transformers(&c, "long").is_err());
        assert!(!Modules::transformers(&c, "absent").expect("none").contains("Linear", "x"));
    }
}
