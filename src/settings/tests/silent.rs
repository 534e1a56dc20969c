//! Mistakes that would show only once tasks run, or never: `check` says them.

use super::{load, parse, refused};

const KIND: &str = "[tasks.t]\nmodels = [\"main\"]\nanswer = { a = \"string\" }\nask = \"Sort this.\"\n";

fn model(more: &str) -> String {
    let section =
        "[models.main]\napi = \"openai\"\nurl = \"http://h/v1\"\nmodel = \"m\"\nwindow_tokens = 9_000\n";
    format!("{section}{more}\n{KIND}")
}

/// A model whose address is this one.
fn at(url: &str) -> String {
    model("").replace("http://h/v1", url)
}

fn kind(more: &str) -> String {
    format!("{}{more}\n", model(""))
}

fn asking(prompt: &str) -> String {
    model("").replace("Sort this.", prompt)
}

#[track_caller]
fn each_says(cases: &[(String, &str)]) {
    for (text, said) in cases {
        let problems = refused(text).to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(problems.contains(said), "`{said}` is not said of\n{text}\nbut:\n{problems}");
        assert_eq!(refused(text).all.len(), 1, "one mistake, one problem:\n{problems}");
    }
}

#[test]
fn what_these_tests_begin_with_is_good() {
    for text in [model(""), kind(""), asking("{{ task | data }}"), at("https://h:65535/v1/x")] {
        load(&text);
    }
}

#[test]
fn a_path_is_not_a_prompt() {
    let cases = ["prompts/edit.markdown", "prompts/edit", "edit.prompt", "edit.md2"];
    each_says(&cases.map(|path| (asking(path), "looks like a path, and would be the prompt")));
    for prompt in ["Sort this/that.", "Summarise.", "Sort e.g. by v1.2"] {
        load(&asking(prompt));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("my prompt.md"), "Read from the file.").unwrap();
    std::fs::write(dir.path().join("my prompt"), "Not read.").unwrap();
    let from = |prompt: &str| {
        super::Settings::parse(&dir.path().join("tidegate.toml"), &asking(prompt), &super::keys)
    };
    let read = from("my prompt.md").map_err(|e| e.to_string()).unwrap();
    assert_eq!(super::ask(&read).prompt.source(), "Read from the file.");
    assert!(from("my prompt").is_err(), "there is such a file, and it would not be read");
}

#[test]
fn a_template_names_only_what_is_there() {
    each_says(&[
        (asking("{{ task | dta }}"), "unknown filter"),
        (asking("{% if task.a is emtpy %}x{% endif %}"), "unknown test"),
        (asking("{{ rnage(3) }}"), "rnage"),
    ]);
    load(&asking("{% for i in task.items %}{{ i.name | upper }}{% endfor %}{{ task.a.b.c | json }}"));
}

#[test]
fn identity_is_a_path_into_the_payload() {
    each_says(&[
        (kind("identity = [\"task.id\"]"), "write \"id\""),
        (kind("identity = [\"idd\"]\ninput = { id = \"string\" }"), "did you mean `task.id`?"),
    ]);
    load(&kind("identity = [\"id\"]\ninput = { id = \"string\" }"));
    load(&kind("identity = [\"task.id\"]\ninput = { task = { id = \"string\" } }"));
}

#[test]
fn an_address_is_what_paths_are_put_behind() {
    each_says(&[
        (at("https://h/v1/chat/completions"), "ends in the path of a call"),
        (at("https://h/v1/messages/"), "ends in the path of a call"),
        (at("https://h/v1?key=hush"), "carries a query"),
        (at("https://h/v1#x"), "carries a query"),
        (at("https://h:99999/v1"), "a port that is none"),
        (at("https://[::1]:x/v1"), "a port that is none"),
    ]);
    assert!(!refused(&at("https://h/v1?key=hush")).to_string().contains("hush"), "a key is never quoted");
    let anthropic = at("http://h:9").replace("\"openai\"", "\"anthropic\"");
    assert_eq!(load(&anthropic).models[0].url, "http://h:9/v1", "as its own programs take it");
}

#[test]
fn headers_and_parameters_do_what_they_say() {
    each_says(&[
        (model("headers = { authorization = \"Bearer env:KEY\" }"), "sent as it stands"),
        (model("headers = { x-team = \"Z\u{fc}rich\" }"), "cannot be sent"),
        (model("headers = { Host = \"elsewhere\" }"), "may not set `host`"),
        (model("params = { n = 2 }"), "may not set `n`"),
        (model("params = { output_format = \"x\" }"), "may not set `output_format`"),
        (model("timeouts = { first_token = \"5m\" }"), "never in force"),
        (model("timeouts = { idle = \"3s\", first_token = \"1s\", total = \"2s\" }"), "timeouts.idle"),
        (model("").replace("model = \"m\"", "model = \" \""), "is empty"),
    ]);
}

#[test]
fn topics_lead_somewhere_and_not_round() {
    each_says(&[
        (kind("from = \"\"\nkey = \"task.id\""), "not the name of a topic"),
        (kind("from = \"a..b\"\nkey = \"task.id\""), "not the name of a topic"),
        (kind("to = \".\""), "not the name of a topic"),
        ("[tasks.a]\nto = \"tasks.b\"\n[tasks.b]\nto = \"tasks.a\"\n".to_owned(), "leads back to it"),
        (
            "[tasks.a]\n[tasks.b]\nfrom = \"results\"\nkey = \"task.id\"\nto = \"tasks.a\"\n".to_owned(),
            "leads back to it",
        ),
        (
            "[tasks.a]\nto = \"tasks.b\"\n[tasks.b]\nto = \"tasks.c\"\n[tasks.c]\nto = \"tasks.a\"\n"
                .to_owned(),
            "leads back to it",
        ),
    ]);
    load("[tasks.a]\nto = \"tasks.b\"\n[tasks.b]\nto = \"tasks.c\"\n[tasks.c]\n");
}

#[test]
fn limits_leave_room_for_what_they_limit() {
    each_says(&[
        ("[http]\nbody_max = \"64KiB\"\n[tasks.t]\n".to_owned(), "less than `engine.record_max`"),
        ("[engine]\ndir = \"\"\n[tasks.t]\n".to_owned(), "`engine.dir` is empty"),
        (
            format!("{}allowance = {{ money = 0.0 }}\n", model("price = { input = 1.0, output = 1.0 }")),
            "no call could be made",
        ),
    ]);
}

#[test]
fn a_rule_walks_a_list_that_is_there() {
    let rule = |each: &str| {
        let kind = KIND.replace("{ a = \"string\" }", "{ items = [{ n = \"number\" }] }");
        let rule = format!("rules = [{{ each = \"{each}\", that = \"item.n > 0.0\" }}]\n");
        model("").replace(KIND, &format!("{kind}{rule}"))
    };
    each_says(&[(rule("answer.itmes"), "did you mean `answer.items`?")]);
}

#[test]
fn a_word_that_is_nearly_right_is_answered_with_the_right_one() {
    let named = |name: &str| model("").replace("\"main\"]", &format!("\"{name}\"]"));
    each_says(&[
        (named("openai/gpt5-mini"), "did you mean `openai/gpt-5-mini`?"),
        (kind("sanitizer = \"None\""), "write sanitizer = \"none\""),
        (kind("sanitizer = \"\""), "write sanitizer = \"none\""),
        (model("").replace("{ a = \"string\" }", "\"string\""), "name its fields: { value = \"string\" }"),
        (kind("rules = [\"answer.a != ''\"]"), "in braces: { key = value }"),
        ("[[tasks]]\nname = \"t\"\n".to_owned(), "[tasks] or [tasks.NAME]"),
        (kind("key = \"Content\""), "did you mean \"content\""),
    ]);
    assert!(parse(&kind("sanitizer = \"none\"")).is_ok());
}
