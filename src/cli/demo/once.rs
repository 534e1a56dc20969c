//! The demo without a screen: one line for each event, then the summary.

use super::super::text::{note, say};
use super::show::{Line, Show, rows};
use std::time::Duration;

pub(super) fn lines(lines: &[Line]) {
    for line in lines {
        say(line.text());
    }
}

/// `answered_again`: whole answers that the provider gave twice for one call, by its own log.
pub(super) fn summary(show: &Show, took: Duration, answered_again: u64) {
    say("");
    say(show.sentence());
    say("");
    for line in show.sum_lines() {
        say(line);
    }
    say(format!(
        "the models' own log: {answered_again} answers given twice, each one of those repeated calls"
    ));
    say("");
    table(&rows::KIND_HEAD, &show.kind_rows());
    say("");
    table(&rows::MODEL_HEAD, &show.model_rows());
    say("");
    for name in show.books.missing() {
        say(format!("missing: {name}"));
    }
    for name in show.books.twice() {
        say(format!("twice: {name}"));
    }
    for call in show.books.unexplained() {
        say(format!("repeated without a kill: {call}"));
    }
    note(format!("took {:.1} s", took.as_secs_f64()));
}

/// Columns as wide as they need to be; figures to the right.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) {
    let width =
        |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
    let print = |cells: [&str; N]| {
        let texts = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(i)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        say(texts.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(*head);
    for row in rows {
        print(row.each_ref().map(String::as_str));
    }
}
