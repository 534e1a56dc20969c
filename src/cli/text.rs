//! How commands print: 80 columns, no colour, nothing that could steer a terminal.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Lines are broken here; a terminal is never narrower.
pub(super) const WIDTH: usize = 80;

/// Prints a line on standard output.
pub(super) fn print(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Prints a line on standard output. Who closes the pipe has seen enough: the command ends well.
///
/// It ends on the spot; a command that has something to take down uses [`print`].
pub(super) fn say(line: impl Display) {
    if let Err(e) = print(line) {
        let code = if e.kind() == std::io::ErrorKind::BrokenPipe { 0 } else { 1 };
        std::process::exit(code);
    }
}

/// Ends once nobody reads standard output any more; never where that cannot be seen, as with a file.
///
/// Who follows something would otherwise notice with the next line only, and that may never come.
pub(super) async fn unread() {
    // Nothing is written through this handle: it only watches, so that it blocks does not matter.
    let out = std::io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(out) = out {
        // It may be woken without a reason.
        while let Ok(ready) = out.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
    }
    std::future::pending().await
}

/// Prints one JSON object on its line.
pub(super) fn say_json(value: &Value) {
    say(value);
}

/// A notice for people, beside the output.
pub(super) fn note(line: impl Display) {
    // Nobody is there to hear it.
    let _: std::io::Result<()> = writeln!(std::io::stderr().lock(), "{line}");
}

/// What went wrong: in lines on a terminal; elsewhere each sentence whole, for whoever searches there.
pub(super) fn complain(text: &str) {
    if std::io::stderr().is_terminal() { note(in_lines(text, 0)) } else { note(text) }
}

/// Somebody else's text with its control characters spelled out, so that it cannot move a cursor,
/// hide a line or change the direction of reading.
pub(super) fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
    };
    if !text.contains(hidden) {
        return text.to_owned();
    }
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// As [`plain`], cut to `max` characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= max {
        return text;
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// The text of a field, or nothing.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// `1234567` as `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 task`, `1,234 tasks`.
pub(super) fn many(n: u64, one: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {one}{ending}", number(n))
}

/// Bytes as people say them.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Seconds as people say them.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `2026-11-24T18:40:31.5Z` as `2026-11-24 18:40:31Z`: it is not the reader's own time, and says so.
pub(super) fn time(rfc3339: &str) -> String {
    let text = plain(rfc3339);
    match text.split_once('T') {
        Some((day, rest)) => match rest.get(..8) {
            Some(clock) => format!("{day} {clock}Z"),
            None => format!("{day} {rest}"),
        },
        None => text,
    }
}

/// Breaks `text` into lines that begin with `indent`.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let room = WIDTH.saturating_sub(indent).max(20);
    let pad = " ".repeat(indent);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in plain(paragraph).split(' ') {
            let mut word = word;
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut line));
            }
            while word.chars().count() > room {
                let end = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                lines.push(word[..end].to_owned());
                word = &word[end..];
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.iter().map(|line| format!("{pad}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `name` in a column of its own, then the text, further lines below the first.
pub(super) fn row(name: &str, text: &str) -> String {
    const COLUMN: usize = 14;
    let text = wrap(text, COLUMN);
    format!("{name:<COLUMN$}{}", text.trim_start())
}

/// A table without borders, at most 80 columns wide.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(80).set_header(header.to_vec());
    table
}

/// JSON for people, indented, each line kept within the terminal.
pub(super) fn pretty(value: &Value, indent: usize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    in_lines(&text, indent)
}

/// Each line as far in as it was and `indent` more; one that is too long goes on below where it begins.
fn in_lines(text: &str, indent: usize) -> String {
    let line = |line: &str| {
        let lead = line.len() - line.trim_start().len();
        wrap(line.trim_start(), indent + lead)
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(plain("Grüße, 世界"), "Grüße, 世界");
        assert_eq!(short("a\nbcdefgh", 6), "a\\u{a…");
    }

    #[test]
    fn what_is_too_long_for_a_line_goes_on_below_where_it_began() {
        let text = format!("error: {}\n  {}", "word ".repeat(20).trim_end(), "help ".repeat(20).trim_end());
        let lines = in_lines(&text, 0);
        let found: Vec<&str> = lines.lines().collect();
        assert_eq!(found.len(), 4, "{lines}");
        assert!(found.iter().all(|line| line.chars().count() <= WIDTH), "{lines}");
        assert!(found[0].starts_with("error: word") && found[1].starts_with("word"), "{lines}");
        assert!(found[2].starts_with("  help") && found[3].starts_with("  help"), "{lines}");
    }

    #[test]
    fn figures_read_as_people_say_them() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(many(1, "task"), "1 task");
        assert_eq!(many(1_000, "task"), "1,000 tasks");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(7_260), "2 h 1 min");
        assert_eq!(time("2026-11-24T18:40:31.5Z"), "2026-11-24 18:40:31Z");
    }

    #[test]
    fn no_line_is_longer_than_eighty_columns() {
        let long = format!("word {} {}", "x".repeat(300), "short ".repeat(40));
        for indent in [0, 14] {
            for line in wrap(&long, indent).lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert!(line.starts_with(&" ".repeat(indent)));
            }
        }
        let pretty = pretty(&serde_json::json!({ "a": "y ".repeat(100) }), 4);
        assert!(pretty.lines().all(|l| l.chars().count() <= WIDTH), "{pretty}");
    }
}
