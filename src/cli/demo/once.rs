//! The demo without a screen: one line for each event, then the summary.

use super::super::text::{note, print};
use super::show::{Line, Show, rows};
use std::io::Result;
use std::time::Duration;

pub(super) fn lines(lines: &[Line]) -> Result<()> {
    lines.iter().try_for_each(|line| print(line.text()))
}

/// `answered_again`: whole answers that the provider gave twice for one call, by its own log.
pub(super) fn summary(show: &Show, took: Duration, answered_again: u64) -> Result<()> {
    print("")?;
    print(show.sentence())?;
    print("")?;
    show.sum_lines().iter().try_for_each(print)?;
    let repeats = show.sums().repeats;
    print(format!("the models' own log: {answered_again} answers given twice, of {repeats} calls repeated"))?;
    print("")?;
    table(&rows::KIND_HEAD, &show.kind_rows())?;
    print("")?;
    table(&rows::MODEL_HEAD, &show.model_rows())?;
    print("")?;
    show.complaints().iter().try_for_each(print)?;
    note(format!("took {:.1} s", took.as_secs_f64()));
    Ok(())
}

/// Columns as wide as they need to be; figures to the right.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> Result<()> {
    let width =
        |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
    let row = |cells: [&str; N]| {
        let texts = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(i)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        print(texts.collect::<Vec<_>>().join("  ").trim_end())
    };
    row(*head)?;
    rows.iter().try_for_each(|cells| row(cells.each_ref().map(String::as_str)))
}
