//! Secrets are read from where the configuration says, and shown nowhere.

use super::{ANTHROPIC_KEY, FOUR_LINES, OPENAI_KEY, keys, load};
use crate::settings::Settings;

#[test]
fn secrets_are_never_shown() {
    let text = format!(
        "{FOUR_LINES}[models.\"openai/gpt-5-mini\"]\nheaders = {{ authorization = \"env:ANTHROPIC_API_KEY\", \
         x-team = \"plain-but-perhaps-secret\" }}\n"
    );
    let settings = load(&text);
    let model = &settings.models[0];
    assert!(model.key.is_some() && model.headers.len() == 2, "the secrets are there");
    let shown = [
        format!("{settings:?}"),
        format!("{:?}", settings.kinds),
        format!("{:?}", settings.models),
        settings.resolved().to_string(),
        settings.resolved_text(),
    ];
    for shown in shown {
        for secret in [OPENAI_KEY, ANTHROPIC_KEY, "plain-but-perhaps-secret"] {
            assert!(!shown.contains(secret), "a secret is in\n{shown}");
        }
    }
}

#[test]
fn a_secret_may_lie_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "sk-from-file\n").unwrap();
    let text = FOUR_LINES.to_owned() + "[models.\"openai/gpt-5-mini\"]\nkey = \"file:key\"\n";
    let settings = Settings::parse(&dir.path().join("t.toml"), &text, &keys).unwrap();
    let key = settings.models[0].key.as_ref().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(key), "sk-from-file");
}
