//! Mistakes about models, prices and secrets: what is said of each, word for word.

use super::says;

#[test]
fn what_is_missing_of_an_unknown_model_is_asked_for() {
    says(
        r##"
[tasks.ticket]
models = ["openai/my-tuned-one", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: the `window_tokens` of model `openai/my-tuned-one` is not known
 --> tidegate.toml:2:11
  |
2 | models = ["openai/my-tuned-one", "anthropic/claude-haiku-4-5"]
  |           ^^^^^^^^^^^^^^^^^^^^^
  = help: add window_tokens = 128_000 (prompt and answer together, as its
          provider says) to [models."openai/my-tuned-one"]
"##,
    );
}

#[test]
fn a_model_of_its_own_needs_api_url_model_and_window() {
    says(
        r##"
[models.main]
key = "env:OPENAI_API_KEY"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: the `api` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add api = "openai" or "anthropic" to [models.main]

error: the `url` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add url = "https://host/v1" to [models.main]

error: the `model` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add model = "the endpoint's name for it" to [models.main]

error: the `window_tokens` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add window_tokens = 128_000 (prompt and answer together, as its
          provider says) to [models.main]
"##,
    );
}

#[test]
fn a_missing_secret_names_its_variable_and_where_it_is_used() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
key = "env:MODEL_KEY"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: model `main` has no key: the environment variable MODEL_KEY is not set
 --> tidegate.toml:6:7
  |
6 | key = "env:MODEL_KEY"
  |       ^^^^^^^^^^^^^^^
  = help: set it where `tidegate` is started, or name another variable
"##,
    );
}

#[test]
fn who_asks_no_model_needs_no_key_of_one_and_is_told_every_other_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.toml");
    let models = "[models.main]\napi = \"openai\"\nurl = \"https://models.example/v1\"\nmodel = \"large\"\n\
         window_tokens = 8_000\nkey = \"env:TIDEGATE_NO_SUCH_KEY\"\n";
    let kind = "[tasks.t]\nmodels = [\"main\"]\nask = \"Sort.\"\nanswer = { a = \"string\" }\n";
    std::fs::write(&path, format!("{models}{kind}")).unwrap();
    assert!(crate::settings::Settings::load(&path).unwrap_err().to_string().contains("has no key"));
    assert_eq!(crate::settings::Settings::load_without_keys(&path).unwrap().kinds.len(), 1);
    std::fs::write(&path, format!("{models}{kind}form = 1\n")).unwrap();
    let said = crate::settings::Settings::load_without_keys(&path).unwrap_err().to_string();
    assert!(said.contains("unknown key `form`") && !said.contains("has no key"), "{said}");
}

#[test]
fn a_missing_secret_file_is_named() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
key = "file:secrets/model"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: model `main` has no key: cannot read ./secrets/model: No such file or
       directory (os error 2)
 --> tidegate.toml:6:7
  |
6 | key = "file:secrets/model"
  |       ^^^^^^^^^^^^^^^^^^^^
  = help: write the secret, and nothing else, into that file; paths start at the
          configuration file's directory
"##,
    );
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_quoted() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
key = "sk-live-51H"
window_tokens = 8_000
[tasks.copy]
"##,
        r##"
error: `models.main.key` does not say where the secret is
 --> tidegate.toml:5:7
  |
5 | key = *************
  |       ^^^^^^^^^^^^^
  = help: a secret never stands in the configuration: write "env:NAME" for an
          environment variable or "file:PATH" for a file; if one stood here,
          replace it at its provider
"##,
    );
}

#[test]
fn a_secret_in_a_line_with_another_mistake_is_not_quoted() {
    says(
        r##"
[models]
main = { api = "opnai", key = "sk-live-51H", url = "http://h/v1", model = "m", window_tokens = 9000 }
[tasks.copy]
"##,
        r##"
error: `models.main.api` does not take "opnai"
 --> tidegate.toml:2:16
  |
2 | main = { api = "opnai", key = *************, url = "http://h/v1", model = "…
  |                ^^^^^^^
  = help: did you mean "openai"? It takes "openai", "anthropic"

error: `models.main.key` does not say where the secret is
 --> tidegate.toml:2:31
  |
2 | … { api = "opnai", key = *************, url = "http://h/v1", model = "m", w…
  |                          ^^^^^^^^^^^^^
  = help: a secret never stands in the configuration: write "env:NAME" for an
          environment variable or "file:PATH" for a file; if one stood here,
          replace it at its provider
"##,
    );
}

#[test]
fn a_secret_in_a_broken_line_is_not_quoted() {
    says(
        r##"
[models.main]
key = "sk-live-51H
[tasks.copy]
"##,
        r##"
error: not valid TOML: invalid basic string, expected `"`
 --> tidegate.toml:2:19
  |
2 | key =*************
  |                   ^
  = help: TOML: key = value, texts in quotes, [section] in brackets
"##,
    );
}

#[test]
fn a_url_with_a_password_is_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://me:pw@models.example/v1"
model = "large"
window_tokens = 8_000
[tasks.copy]
"##,
        r##"
error: `models.main.url` carries a name or password
 --> tidegate.toml:3:7
  |
3 | url = *********************************
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: put the secret into `key` or `headers`, as env:NAME or file:PATH
"##,
    );
}

#[test]
fn negative_prices_are_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
price = { input = -0.25, output = 2.0 }
[tasks.copy]
"##,
        r##"
error: `models.main.price.input` is -0.25, which is out of range
 --> tidegate.toml:6:19
  |
6 | price = { input = -0.25, output = 2.0 }
  |                   ^^^^^
  = help: from 0 to 1000000
"##,
    );
}

#[test]
fn half_a_price_is_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
price = { input = 0.25 }
[tasks.copy]
"##,
        r##"
error: `models.main.price.output` is missing
 --> tidegate.toml:6:9
  |
6 | price = { input = 0.25 }
  |         ^^^^^^^^^^^^^^^^
  = help: per million tokens; leave `price` out if it is not known: cost is null
          then
"##,
    );
}

#[test]
fn money_cannot_be_limited_where_a_price_is_unknown() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
[tasks.ticket]
models = ["main"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
allowance = { money = 0.05 }
"##,
        r##"
error: `tasks.ticket.allowance.money` cannot be kept: the price of `main` is not
       known
  --> tidegate.toml:10:23
   |
10 | allowance = { money = 0.05 }
   |                       ^^^^
   = help: add price = { input = 0.25, output = 2.0 } to [models.main], per
           million tokens
"##,
    );
}

#[test]
fn parameters_that_tidegate_writes_itself_are_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
params = { stream = false }
[tasks.copy]
"##,
        r##"
error: `models.main.params` may not set `stream`
 --> tidegate.toml:6:10
  |
6 | params = { stream = false }
  |          ^^^^^^^^^^^^^^^^^^
  = help: Tidegate writes it into each request itself; leave it out
"##,
    );
}

#[test]
fn a_secret_under_a_name_we_do_not_know_is_not_quoted() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
api_key = "sk-live-51H"
[tasks.copy]
[http]
bearer_token = "sk-live-51H"
"##,
        r##"
error: unknown key `api_key` in [models.main]
 --> tidegate.toml:6:1
  |
6 | api_key = *************
  | ^^^^^^^
  = help: did you mean `api`?

error: unknown key `bearer_token` in [http]
 --> tidegate.toml:9:1
  |
9 | bearer_token = *************
  | ^^^^^^^^^^^^
  = help: known here: listen, body_max
"##,
    );
}
