//! Mistakes about Avro and the schema registry: what is said of each.

use super::{load, refused, says};
use crate::settings::Format;

/// What is said of `text`, each problem in a line.
fn told(text: &str) -> String {
    refused(text).to_string()
}

#[test]
fn a_kind_of_avro_needs_a_registry_or_files() {
    says(
        r##"
[tasks.order]
format = "avro"
"##,
        r##"
error: `tasks.order` is Avro, and there is no schema registry
 --> tidegate.toml:2:10
  |
2 | format = "avro"
  |          ^^^^^^
  = help: add [registry] with url = "http://…", or with schemas = { 7 =
          "order.avsc" }
"##,
    );
    let kinds =
        load("[tasks.order]\nformat = \"avro\"\n[registry]\nurl = \"http://registry:8081/apis\"").kinds;
    assert_eq!((kinds[0].format, kinds[0].result_format), (Format::Avro, Format::Json));
}

#[test]
fn what_does_not_go_together_is_told() {
    let registry = "[registry]\nurl = \"http://r\"\n";
    let avro = "[tasks.a]\nformat = \"avro\"\n";
    let writes = "[tasks.a]\nresult_format = \"avro\"\n";
    for (text, words) in [
        (format!("{avro}[registry]"), "has neither a `url` nor `schemas`"),
        (format!("{avro}{registry}schemas = {{ 7 = \"a.avsc\" }}"), "has both a `url` and `schemas`"),
        (format!("{avro}[registry]\nschemas = {{ 7 = \"gone.avsc\" }}"), "there is no schema at ./gone.avsc"),
        (
            format!("{avro}[registry]\nschemas = {{ seven = \"tidegate:result:1\" }}"),
            "is not named for an id",
        ),
        (format!("{avro}[registry]\nurl = \"registry:8081\""), "is not the address of a registry"),
        (format!("{avro}{registry}user = \"ada\""), "has a `user` and no `password`"),
        (format!("{avro}{registry}password = \"env:OPENAI_API_KEY\""), "has a `password` and no `user`"),
        (format!("{avro}{registry}token = \"env:NOT_SET\""), "NOT_SET is not set"),
        (format!("{avro}{registry}timeout = \"1h\""), "`registry.timeout` is 1h"),
        (format!("{writes}shape = \"answer\"\n{registry}"), "has shape = \"answer\" and result_format"),
        (format!("{writes}[tasks.b]\n{registry}"), "`a` writes Avro to `results`, and `b` writes JSON there"),
        (format!("[tasks.a]\nintake_schema = 7\n{registry}"), "its records are JSON"),
        ("[tasks.a]\nformat = \"arvo\"".to_owned(), "did you mean \"avro\""),
    ] {
        let said = told(&text);
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "{text}\n{said}");
    }
    let files = "[registry]\nschemas = { 12 = \"tidegate:result:1\" }\n";
    let said = told(&format!("[tasks.a]\nformat = \"avro\"\nintake_schema = 7\n{files}"));
    assert!(said.contains("is 7, and no file is given for that"), "{said}");
    assert_eq!(load(&format!("{writes}{files}")).kinds[0].result_format, Format::Avro);
}

#[test]
fn no_secret_of_a_registry_is_shown() {
    let text = "[tasks.a]\nformat = \"avro\"\n[registry]\nurl = \"http://r\"\nuser = \"ada\"\npassword = \"env:OPENAI_API_KEY\"";
    let shown = load(text).resolved_text();
    assert!(shown.contains("user and password, hidden") && !shown.contains("sk-live"), "{shown}");
    let said = told(
        "[tasks.a]\nformat = \"avro\"\n[registry]\nurl = \"http://ada:s3cret@r\"\ntoken = \"t0ps3cret\"",
    );
    assert!(!said.contains("s3cret"), "{said}");
}
