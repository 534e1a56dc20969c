//! Changes an answer: one field at a time, from a file, or in an editor; and says what has changed.

use anyhow::Context as _;
use serde_json::{Map, Value};
use std::io::{Read as _, Write as _};
use std::path::Path;

/// An answer larger than this is not edited by hand.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// Items added at the end of a list by naming the index after its last.
const LIST_MAX: usize = 10_000;

/// `field=value`: text stays text where the field holds text, else JSON is read if it is JSON.
/// `field:=json`: JSON.
pub(super) fn set(answer: &mut Value, change: &str) -> anyhow::Result<()> {
    let (name, value) = change.split_once('=').context("is not FIELD=VALUE")?;
    let (name, json) = match name.strip_suffix(':') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let place = find(answer, name.trim())?;
    *place = if json {
        serde_json::from_str(value).context("what follows `:=` is not JSON")?
    } else if place.is_string() {
        Value::String(value.to_owned())
    } else {
        serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))
    };
    Ok(())
}

/// `a.b[2].c`. Fields that are missing are made; list items only right after the last.
fn find<'v>(answer: &'v mut Value, name: &str) -> anyhow::Result<&'v mut Value> {
    let mut at = answer;
    for part in name.replace('[', ".[").split('.').filter(|p| !p.is_empty()) {
        at = match part.strip_prefix('[').and_then(|p| p.strip_suffix(']')) {
            Some(index) => {
                let index: usize = index.parse().with_context(|| format!("`[{index}]` is not an index"))?;
                let items = at
                    .as_array_mut()
                    .with_context(|| format!("`{part}` stands behind what is not a list"))?;
                anyhow::ensure!(
                    index <= items.len() && index < LIST_MAX,
                    "the list has {} items",
                    items.len()
                );
                if index == items.len() {
                    items.push(Value::Null);
                }
                &mut items[index]
            }
            None => {
                if at.is_null() {
                    *at = Value::Object(Map::new());
                }
                let fields = at
                    .as_object_mut()
                    .with_context(|| format!("`{part}` stands behind what has no fields"))?;
                fields.entry(part).or_insert(Value::Null)
            }
        };
    }
    Ok(at)
}

pub(super) fn from_file(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(FILE_MAX)
            .read_to_string(&mut text)
            .context("cannot read standard input as text")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(FILE_MAX)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {} as text", path.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// The answer in `$VISUAL` or `$EDITOR`, in a file that only this user can read.
pub(super) fn in_editor(before: &Value, item: &Value) -> anyhow::Result<Value> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|e| !e.trim().is_empty());
    let editor = editor.context("say what to change with --set FIELD=VALUE or --file, or set $EDITOR")?;
    let begin = match (before, item["answer_text"].as_str()) {
        (Value::Null, Some(text)) => text.to_owned(),
        _ => serde_json::to_string_pretty(before)?,
    };
    let path = std::env::temp_dir().join(format!("tidegate-review-{:016x}.json", rand::random::<u64>()));
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let written = options.open(&path).and_then(|mut file| file.write_all(begin.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    // The variable may hold arguments (`code --wait`), so a shell reads it; the path is its argument.
    let ended = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(&path)
        .status();
    let answer = match ended {
        Ok(status) if status.success() => from_file(&path),
        Ok(_) => Err(anyhow::anyhow!("{editor} did not end well; nothing was sent")),
        Err(e) => Err(anyhow::Error::new(e).context(format!("cannot start {editor}"))),
    };
    match &answer {
        Ok(_) => std::fs::remove_file(&path).unwrap_or_default(),
        // Somebody's work is in there.
        Err(_) => super::note(format!("what you wrote is kept in {}", path.display())),
    }
    answer
}

/// What differs, field by field: `- old` and `+ new`.
pub(super) fn difference(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", Some(before), Some(after), &mut lines);
    lines
}

fn compare(at: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                compare(&at, old.get(name), new.get(name), lines);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                compare(&format!("{at}[{i}]"), old.get(i), new.get(i), lines);
            }
        }
        _ => {
            let name = if at.is_empty() { "answer" } else { at };
            lines.extend(before.map(|value| format!("- {name}: {value}")));
            lines.extend(after.map(|value| format!("+ {name}: {value}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_keeps_its_type_and_lists_grow_by_one() {
        let mut answer = json!({ "a": { "b": "5" }, "n": 1, "list": [{ "x": true }] });
        for change in [
            "a.b=7",
            "n=2",
            "list[0].x=false",
            "list[1]={\"x\":null}",
            "new.deep=plain words",
            "a.b:=null",
            "eq=a=b",
        ] {
            set(&mut answer, change).unwrap();
        }
        let expected = json!({ "a": { "b": null }, "n": 2, "list": [{ "x": false }, { "x": null }], "new": { "deep": "plain words" }, "eq": "a=b" });
        assert_eq!(answer, expected);
        set(&mut answer, "a.b=text").unwrap();
        set(&mut answer, "a.b=7").unwrap();
        assert_eq!(answer["a"]["b"], "7", "what was text stays text");
    }

    #[test]
    fn a_change_that_cannot_be_made_says_why() {
        let mut answer = json!({ "a": 1, "l": [] });
        for (change, why) in [
            ("a", "FIELD=VALUE"),
            ("a.b=1", "no fields"),
            ("a[0]=1", "not a list"),
            ("l[3]=1", "0 items"),
            ("l[x]=1", "not an index"),
            ("a:=oops", "not JSON"),
        ] {
            let said = format!("{:#}", set(&mut answer, change).unwrap_err());
            assert!(said.contains(why), "{change}: {said}");
        }
        assert_eq!(answer, json!({ "a": 1, "l": [] }));
    }

    #[test]
    fn the_difference_names_every_field_that_changed_and_no_other() {
        let before = json!({ "same": 1, "changed": "a", "gone": null, "list": [1, 2] });
        let after = json!({ "same": 1, "changed": "b", "new": [0], "list": [1] });
        let expected = ["- changed: \"a\"", "+ changed: \"b\"", "- gone: null", "- list[1]: 2", "+ new: [0]"];
        assert_eq!(difference(&before, &after), expected);
        assert!(difference(&before, &before).is_empty());
        assert_eq!(difference(&json!({}), &json!({ "a": null })), ["+ a: null"]);
    }
}
