//! What kinds must not do to each other: two kinds may read one topic only if every record there says
//! by its CloudEvents type whose it is.

use super::context::Context;
use super::raw::RawKind;
use super::written::Named;
use std::collections::BTreeMap;

/// Kinds that write what they read, over others: their tasks would go round for ever.
fn circles(kinds: &Named<RawKind>, prefix: &str, cx: &Context<'_>) {
    let from = |i: usize| {
        let (name, raw) = &kinds.0[i];
        raw.from.or(format!("{prefix}tasks.{}", name.get_ref()))
    };
    // Each kind once, so each circle through `i` is met, and the walk ends.
    for i in 0..kinds.0.len() {
        let mut reached = vec![i];
        let mut next = 0;
        while let Some(&at) = reached.get(next) {
            next += 1;
            let to = kinds.0[at].1.to.or(format!("{prefix}results"));
            // A kind that writes its own topic is told by its own check.
            if to == from(i) && at != i {
                let (name, raw) = &kinds.0[i];
                let what = format!(
                    "`{}` writes what `{}` reads, which leads back to it",
                    kinds.0[at].0.get_ref(),
                    name.get_ref()
                );
                let span = raw.to.span().unwrap_or(name.span());
                cx.report.add(
                    span,
                    what,
                    "tasks would go round for ever; let one of them write to another topic",
                );
                return;
            }
            reached.extend(
                (0..kinds.0.len()).filter(|k| to == from(*k) && !reached.contains(k)).collect::<Vec<_>>(),
            );
        }
    }
}

pub(super) fn check(kinds: &Named<RawKind>, prefix: &str, cx: &Context<'_>) {
    circles(kinds, prefix, cx);
    let mut readers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, (name, raw)) in kinds.0.iter().enumerate() {
        let own = format!("{prefix}tasks.{}", name.get_ref());
        readers.entry(raw.from.or(own)).or_default().push(i);
    }
    for (topic, readers) in readers.iter().filter(|(_, readers)| readers.len() > 1) {
        for (at, &i) in readers.iter().enumerate() {
            one(kinds, topic, i, &readers[..at], readers, cx);
        }
    }
}

/// `earlier` and `all` are the kinds that read the topic of kind `i`.
fn one(kinds: &Named<RawKind>, topic: &str, i: usize, earlier: &[usize], all: &[usize], cx: &Context<'_>) {
    let (name, raw) = &kinds.0[i];
    let other = all.iter().find(|o| **o != i).map_or("", |o| kinds.0[*o].0.get_ref().as_str());
    let span = raw.from.span().unwrap_or(name.span());
    match raw.ce_type.given() {
        None if raw.ce_type.is_absent() => {
            let what =
                format!("`{}` reads `{topic}`, and so does `{other}`, but it has no `type`", name.get_ref());
            let help = "add type = \"…\": the `ce_type` header tells the kinds of one topic apart";
            cx.report.add(span, what, help);
        }
        None => {}
        Some(given) => {
            let same = |o: &&usize| kinds.0[**o].1.ce_type.get() == Some(given.get_ref());
            if let Some(twin) = earlier.iter().find(same) {
                let twin = kinds.0[*twin].0.get_ref();
                let what = format!(
                    "`{}` and `{twin}` both read type \"{}\" from `{topic}`",
                    name.get_ref(),
                    given.get_ref()
                );
                cx.report.add(
                    given.span(),
                    what,
                    "each record belongs to one kind; give one of them another type",
                );
            }
        }
    }
}
