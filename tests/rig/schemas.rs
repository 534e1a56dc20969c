//! The published schemas, as a consumer in another language would use them.

use serde_json::Value;

/// `schemas/NAME.json`.
pub(crate) fn read(name: &str) -> Value {
    let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What of `value` the schema refuses; empty if it is fine.
pub(crate) fn refuses(name: &str, value: &Value) -> Vec<String> {
    let schema = jsonschema::options().should_validate_formats(true).build(&read(name));
    let schema = schema.unwrap_or_else(|e| panic!("schemas/{name}.json: {e}"));
    schema.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}
