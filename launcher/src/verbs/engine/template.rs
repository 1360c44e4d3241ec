//! `--format`: the part of Go's templates that callers of container engines use.

use crate::error::{Error, Result};
use serde_json::Value;

const FORMS: &str = "supported: {{.Field}}, {{.Field.Member}}, {{json .Field}}, {{json .}}, and text";

/// The text of a template, with the values of its fields. `\n` and `\t` in it are a line break and a tabulator, as in Podman.
pub fn render(template: &str, value: &Value) -> Result<String> {
    let template = template.replace("\\n", "\n").replace("\\t", "\t");
    let bad = |why: String| Error::input(format!("--format {template:?}: {why}")).with_hint(FORMS);
    let (mut text, mut rest) = (String::new(), template.as_str());
    while let Some((before, action)) = rest.split_once("{{") {
        let (action, after) = action.split_once("}}").ok_or_else(|| bad("{{ without }}".to_owned()))?;
        text.push_str(before);
        let words: Vec<&str> = action.split_whitespace().collect();
        let (path, is_json) = match words[..] {
            [path] => (path, false),
            ["json", path] => (path, true),
            _ => return Err(bad(format!("unsupported action {action:?}"))),
        };
        let found = field(value, path).map_err(bad)?;
        match is_json {
            true => text.push_str(&found.to_string()),
            false => plain(found, &mut text),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn field<'a>(value: &'a Value, path: &str) -> std::result::Result<&'a Value, String> {
    let names = path.strip_prefix('.').ok_or_else(|| format!("unsupported action {path:?}"))?;
    names.split('.').filter(|name| !name.is_empty()).try_fold(value, |value, name| {
        value.get(name).ok_or_else(|| {
            let names = value.as_object().into_iter().flat_map(|members| members.keys());
            format!("there is no field {name:?}; fields: {}", names.cloned().collect::<Vec<_>>().join(", "))
        })
    })
}

/// As Go prints it.
fn plain(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => text.push_str(string),
        Value::Null => text.push_str("<nil>"),
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { " " });
                plain(item, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use serde_json::json;

    #[test]
    fn fields_are_printed_as_go_does() {
        let value = json!({"Id": "abc", "Tags": ["a", "b"], "Size": 7, "Config": {"User": ""}});
        for (template, text) in [
            ("", ""),
            ("{{.Id}}", "abc"),
            ("{{ .Id }}-{{.Size}}", "abc-7"),
            ("{{json .Tags}}\n{{.Id}}", "[\"a\",\"b\"]\nabc"),
            ("{{json .Tags}}\\n{{.Tags}}", "[\"a\",\"b\"]\n[a b]"),
            ("{{json .Config}}{{.Config.User}}", "{\"User\":\"\"}"),
        ] {
            assert_eq!(render(template, &value).expect(template), text, "{template}");
        }
        for (bad, needle) in [
            ("{{.Id", "without"),
            ("{{.Missing}}", "fields: Id, Tags"),
            ("{{range .Tags}}x{{end}}", "range"),
            ("{{Id}}", "Id"),
            ("{{.Id.Member}}", "Member"),
        ] {
            let error = render(bad, &value).expect_err(bad);
            assert!(error.to_string().contains(needle), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("json")), "{error:?}");
        }
    }
}
