//! `tidegate explain`: what a reason code means and what to do about it.

use super::Global;
use super::text::{note, say, say_json, wrap};
use crate::outcome::Reason;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The code, with or without `TG-`; without one, all are listed.
    code: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some(code) = args.code else {
        for reason in Reason::ALL {
            if global.json { say_json(&as_json(*reason)) } else { say(in_a_line(*reason)) }
        }
        return Ok(ExitCode::SUCCESS);
    };
    match Reason::parse(&code) {
        Some(reason) if global.json => say_json(&as_json(reason)),
        Some(reason) => say(in_full(reason)),
        None => {
            note(unknown(&code));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(reason: Reason) -> Value {
    json!({ "code": reason.to_string(), "what": reason.what(), "remedy": reason.remedy() })
}

fn in_a_line(reason: Reason) -> String {
    format!("{:<22} {}", reason.to_string(), wrap(reason.what(), 23).trim_start())
}

fn in_full(reason: Reason) -> String {
    let (what, remedy) = (wrap(reason.what(), 2), wrap(reason.remedy(), 2));
    format!("{reason}\n\nWhat happened\n{what}\n\nWhat to do\n{remedy}")
}

/// Points at the codes that were probably meant; without any, at the list.
fn unknown(code: &str) -> String {
    let word = code.trim().to_ascii_lowercase();
    let word = word.strip_prefix("tg-").unwrap_or(&word);
    let mut near: Vec<(usize, Reason)> =
        Reason::ALL.iter().map(|r| (strsim::damerau_levenshtein(word, r.code()), *r)).collect();
    // A third of the letters wrong, or a part of the code, is still meant for it.
    near.retain(|(edits, r)| {
        *edits <= (r.code().len() / 3).max(1) || (word.len() > 2 && r.code().contains(word))
    });
    near.sort();
    let mut out = format!("error: there is no code `{}`", code.trim());
    for (_, reason) in near.iter().take(3) {
        out.push_str(&format!("\n  did you mean {reason}?"));
    }
    if near.is_empty() {
        let codes: Vec<_> = Reason::ALL.iter().map(|r| format!("  {}", in_a_line(*r))).collect();
        out.push_str(&format!("; the codes are\n{}", codes.join("\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_explained_with_what_happened_and_what_to_do() {
        let shown = in_full(Reason::parse("tg-KEY-conflict").unwrap());
        assert!(shown.starts_with("TG-key-conflict\n\nWhat happened\n  The key belongs"), "{shown}");
        assert!(shown.contains("What to do\n  Two different payloads"), "{shown}");
    }

    #[test]
    fn every_explanation_fits_a_terminal() {
        for reason in Reason::ALL {
            for text in [in_full(*reason), in_a_line(*reason)] {
                assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            }
        }
    }

    #[test]
    fn a_misspelt_code_is_answered_with_the_nearest() {
        assert_eq!(
            unknown("TG-key-conflcit"),
            "error: there is no code `TG-key-conflcit`\n  did you mean TG-key-conflict?"
        );
        assert!(unknown("deadline").contains("did you mean TG-deadline-passed?"));
    }

    #[test]
    fn a_code_like_no_other_is_answered_with_all_of_them() {
        let shown = unknown("zzz");
        assert!(Reason::ALL.iter().all(|r| shown.contains(&r.to_string())), "{shown}");
    }
}
