//! Conversations as text: the tokenizer's chat template, which is untrusted, renders them.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value as Item};
use rayon::prelude::*;
use serde::Serialize as _;
use serde_json::Value;

use crate::checkpoint::exists;
use crate::dataset::{Row, Texts};
use crate::{files, limits};
use invarlock_error::{Context as _, Error, Result, bail};
use invarlock_evidence::numerics::digest::sha256_hex;

/// A file with the template of a tokenizer.
const FILE: &str = "chat_template.jinja";
/// The name of the template in a file.
const NAME: &str = "chat";

/// A chat template.
pub struct Template {
    environment: Environment<'static>,
    /// SHA-256 of its source.
    pub sha256: String,
    special: Vec<(&'static str, String)>,
}

impl Template {
    /// The template of a checkpoint: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("tokenizer_config.json");
        let settings: Value = match exists(&path) {
            true => files::read_json(&path, "tokenizer configuration", limits::CONFIG_BYTES)?,
            false => Value::Null,
        };
        let path = directory.join(FILE);
        let source = match exists(&path) {
            true => files::read_text(&path, limits::CONFIG_BYTES)?,
            false => embedded(&settings).ok_or_else(|| {
                Error::input(format!(
                    "{}: the dataset has conversations, but the tokenizer has no chat template",
                    directory.display()
                ))
                .with_hint("use a checkpoint with chat_template.jinja, or a dataset with texts")
            })?,
        };
        let special = ["bos_token", "eos_token", "unk_token", "pad_token"].into_iter().filter_map(|name| {
            let token = settings.get(name)?;
            Some((name, token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned()))
        });
        Self::new(source, special.collect())
            .with_context(|| format!("{}: invalid chat template", directory.display()))
    }

    fn new(source: String, special: Vec<(&'static str, String)>) -> Result<Self> {
        let sha256 = sha256_hex(source.as_bytes());
        let mut environment = Environment::new();
        // As transformers renders templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| Error::system(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Item, minijinja::Error> {
                Err(minijinja::Error::new(
                    ErrorKind::InvalidOperation,
                    format!("the template refuses the conversation: {message}"),
                ))
            },
        );
        environment.add_filter("tojson", to_json);
        // Templates that loop end here; the largest known ones take some thousand steps for a conversation.
        environment.set_fuel(Some(limits::TEMPLATE_STEPS));
        environment.add_template_owned(NAME, source).map_err(|error| Error::input(describe(&error)))?;
        Ok(Self { environment, sha256, special })
    }

    /// The text of a conversation: a JSON array of objects.
    fn render(&self, messages: &str) -> Result<String> {
        let messages: Value =
            serde_json::from_str(messages).map_err(|error| Error::input(error.to_string()))?;
        let mut names: Vec<(&str, Item)> =
            self.special.iter().map(|(name, token)| (*name, Item::from(token.as_str()))).collect();
        names.push(("messages", Item::from(Serde(messages))));
        names.push(("add_generation_prompt", Item::from(false)));
        let failed = |error: minijinja::Error| Error::input(describe(&error));
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let mut text = Bounded(Vec::new());
        match template.render_captured_to(Item::from(Kwargs::from_iter(names)), &mut text).map(|_| ()) {
            Err(_) if text.0.len() >= limits::LINE_BYTES => {
                bail!(Input, "the chat template makes a text of more than {} bytes", limits::LINE_BYTES)
            }
            Err(error) => Err(failed(error)),
            Ok(()) => String::from_utf8(text.0).map_err(|error| Error::input(error.to_string())),
        }
    }
}

/// A value as Python's `json.dumps` writes it, which transformers uses in place of Jinja's filter.
fn to_json(value: &Item, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Characters are never escaped, and members stay in their order.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced)),
    };
    let failed = |error: String| minijinja::Error::new(ErrorKind::InvalidOperation, error);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(text).map_err(|error| failed(error.to_string()))
}

/// JSON on a line, with a space after commas and colons.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The template in a tokenizer's configuration: a text, or the one of several that is named `default`.
fn embedded(settings: &Value) -> Option<String> {
    match settings.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let default =
                named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))?;
            Some(default.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
}

/// The errors of a template, with what caused them.
fn describe(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => {
            format!("the template takes more than {} steps for a conversation", limits::TEMPLATE_STEPS)
        }
        _ => error.to_string(),
    }
}

/// Collects a bounded number of bytes.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left = limits::LINE_BYTES - self.0.len();
        if left == 0 && !bytes.is_empty() {
            return Err(std::io::Error::other("too long"));
        }
        let taken = bytes.len().min(left);
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The texts of conversations. A conversation in which the template refuses a role, say, is an error: leaving it out would measure other
/// rows than the user expects.
pub fn render(conversations: &Texts, template: &Template) -> Result<Texts> {
    let render = |(number, row): (usize, &Row)| {
        let text = template.render(&row.text).with_context(|| format!("conversation {}", number + 1))?;
        Ok(Row { is_conversation: true, ..Row::text(text) })
    };
    let rows = conversations.rows.par_iter().enumerate().map(render).collect::<Result<_>>()?;
    Ok(Texts { rows, blank: conversations.blank })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}\n    {{- '<|im_start|>' + message['role'] + '\\n' + message.content.strip() + '<|im_end|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}x{% endif %}";

    fn text(source: &str, messages: &str) -> Result<String> {
        Template::new(source.to_owned(), vec![("bos_token", "<s>".to_owned())])?.render(messages)
    }

    #[test]
    fn conversations_are_rendered_as_transformers_does() {
        let messages = r#"[{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes"}]"#;
        assert_eq!(
            text(CHATML, messages).expect("text"),
            "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nYes<|im_end|>"
        );
        assert_eq!(text("{{ bos_token }}{{ messages[1]['content'] }}", messages).expect("text"), "<s>Yes");
        assert_eq!(
            text("{{ messages[0] | tojson }}", messages).expect("text"),
            r#"{"role": "user", "content": " Hi "}"#
        );
        assert_eq!(text("{% if strftime_now is defined %}now{% endif %}.", messages).expect("text"), ".");
    }

    #[test]
    fn templates_that_loop_or_refuse_are_errors() {
        for (source, expected) in [
            (
                "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                "steps for a conversation",
            ),
            ("{% for i in range(90000) %}{{ 'a' * 100000 }}{% endfor %}", "text of more than"),
            ("{{ raise_exception('no system role') }}", "refuses the conversation: no system role"),
            ("{% for %}", "syntax error"),
            ("{{ messages.absent.more }}", "undefined"),
        ] {
            let error = text(source, "[]").expect_err(source);
            assert!(error.to_string().contains(expected), "{source}: {error}");
        }
    }
}
