//! Reads what is written, field by field, so that every mistake is found and not only the first.
//!
//! Strict: a key nobody asked for is a problem with a suggestion. Decides about forms only (a text, a
//! number, a duration), never about what values mean together.

use super::problems::Report;
use super::quantity;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// A field as written. A field that is there but wrong has been reported already, and must not be
/// reported again as missing.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Wrong(Range<usize>),
    Given(Spanned<T>),
}

impl<T> Field<T> {
    pub(super) fn given(&self) -> Option<&Spanned<T>> {
        if let Field::Given(value) = self { Some(value) } else { None }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.given().map(Spanned::get_ref)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Field::Absent => None,
            Field::Wrong(span) => Some(span.clone()),
            Field::Given(value) => Some(value.span()),
        }
    }
}

impl<T: Clone> Field<T> {
    pub(super) fn or_default(&self) -> T
    where
        T: Default,
    {
        self.get().cloned().unwrap_or_default()
    }

    pub(super) fn or(&self, default: T) -> T {
        self.get().cloned().unwrap_or(default)
    }
}

/// A form that a value can be written in.
pub(super) trait Written: Sized {
    /// Reads `node`, the value of `name`; `None` when it is wrong, and then the report says why.
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self>;

    fn field(node: &Node<'_>, name: &str, report: &Report<'_>) -> Field<Self> {
        match Self::read(node, name, report) {
            Some(value) => Field::Given(Spanned::new(node.span(), value)),
            None => Field::Wrong(node.span()),
        }
    }
}

/// Says that `name` should be `form`.
pub(super) fn misfit<T>(node: &Node<'_>, name: &str, form: &str, report: &Report<'_>) -> Option<T> {
    report.bare(node.span(), format!("`{name}` should be {form}, but is {}", form_of(node)));
    None
}

fn form_of(node: &Node<'_>) -> &'static str {
    match node.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(i) if i.as_str().starts_with('-') => "negative",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Written for String {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        match node.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => misfit(node, name, "a text in quotes", report),
        }
    }
}

impl Written for bool {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        node.get_ref().as_bool().or_else(|| misfit(node, name, "true or false", report))
    }
}

impl Written for u64 {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let number =
            node.get_ref().as_integer().and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok());
        number.or_else(|| misfit(node, name, "a whole number, not negative", report))
    }
}

impl Written for f64 {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let number = match node.get_ref() {
            DeValue::Float(f) => f.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|i| i as f64),
            _ => None,
        };
        number.filter(|n: &f64| n.is_finite()).or_else(|| misfit(node, name, "a number", report))
    }
}

impl Written for Duration {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let duration = node.get_ref().as_str().and_then(quantity::duration);
        if duration.is_none() {
            let help = "a number with its unit, in quotes: \"500ms\", \"30s\", \"5m\", \"1h30m\", \"7d\"";
            report.add(node.span(), format!("`{name}` is not a duration"), help);
        }
        duration
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

impl Written for Size {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let size = node.get_ref().as_str().and_then(quantity::size);
        if size.is_none() {
            let help = "a number with its unit, in quotes: \"512KiB\", \"1MiB\", \"20GiB\"";
            report.add(node.span(), format!("`{name}` is not a size"), help);
        }
        size.map(Size)
    }
}

impl<T: Written> Written for Vec<Spanned<T>> {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let Some(items) = node.get_ref().as_array() else {
            return misfit(node, name, "a list in brackets", report);
        };
        let one = |item| T::read(item, name, report).map(|value| Spanned::new(item.span(), value));
        // Each item is read, so that each wrong one is reported.
        let read: Vec<_> = items.iter().map(one).collect();
        read.into_iter().collect()
    }
}

/// A table whose keys are names that people choose, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(Spanned<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: Written> Written for Named<T> {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let table = table(node, name, report)?;
        let mut all = Vec::with_capacity(table.len());
        for (key, value) in in_order(table) {
            if let Some(read) = T::read(value, &path(name, key.get_ref()), report) {
                all.push((Spanned::new(key.span(), key.get_ref().to_string()), read));
            }
        }
        Some(Named(all))
    }
}

/// Any value, as JSON; tables keep the order of the file.
impl Written for serde_json::Value {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        use serde_json::Value;
        Some(match node.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Float(_) => f64::read(node, name, report)?.into(),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(number) => number.into(),
                Err(_) => return misfit(node, name, "a number of at most 64 bits", report),
            },
            DeValue::Array(items) => {
                Value::Array(items.iter().map(|v| Value::read(v, name, report)).collect::<Option<_>>()?)
            }
            DeValue::Table(table) => {
                let entry = |(key, value): (&Spanned<_>, _)| {
                    let key: &std::borrow::Cow<'_, str> = key.get_ref();
                    Some((key.to_string(), Value::read(value, name, report)?))
                };
                Value::Object(in_order(table).into_iter().map(entry).collect::<Option<_>>()?)
            }
        })
    }
}

pub(super) fn table<'n, 'i>(node: &'n Node<'i>, name: &str, report: &Report<'_>) -> Option<&'n DeTable<'i>> {
    match node.get_ref().as_table() {
        Some(table) => Some(table),
        None => {
            let help = match node.get_ref() {
                DeValue::Array(_) => format!("a section has one pair of brackets: [{name}] or [{name}.NAME]"),
                _ => "in braces: { key = value }".to_owned(),
            };
            let what = format!("`{name}` should be a table, but is {}", form_of(node));
            report.add(node.span(), what, help);
            None
        }
    }
}

/// The parser keeps tables sorted; people think in the order they wrote.
pub(super) fn in_order<'n, 'i>(
    table: &'n DeTable<'i>,
) -> Vec<(&'n Spanned<std::borrow::Cow<'i, str>>, &'n Node<'i>)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_by_key(|(key, _)| key.span().start);
    all
}

/// A key nobody asked for. Gives the one that was probably meant, so that it is not reported as missing too.
pub(super) fn unknown(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    place: &str,
    known: &[&'static str],
    later: &[(&str, &str)],
    report: &Report<'_>,
) -> Option<&'static str> {
    let word: &str = key.get_ref();
    if let Some((_, what)) = later.iter().find(|(name, _)| *name == word) {
        report.add(key.span(), format!("{what} not in this version"), "leave this out until then");
        return None;
    }
    let near = closest(word, known.iter().copied());
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    let place = if place.is_empty() { "at the top of the file".to_owned() } else { format!("in [{place}]") };
    report.add(key.span(), format!("unknown key `{word}` {place}"), help);
    near
}

/// How `key` of the table `place` is called in messages and in TOML: `tasks.ticket.ask`.
pub(super) fn path(place: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if place.is_empty() { key } else { format!("{place}.{key}") }
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let far = |candidate: &str| {
        let edits = strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
        // One mistake in three letters is still the same word; so are a beginning (`window`) and a
        // longer name for the same (`api_key`).
        let near = edits <= (word.chars().count() / 3).max(1)
            || (word.len() >= 3 && candidate.starts_with(word))
            || word.split('_').any(|part| part == candidate)
            || strsim::jaro_winkler(word, candidate) > 0.9;
        near.then_some(edits)
    };
    let near = candidates.into_iter().filter_map(|c| far(c).map(|edits| (edits, c)));
    near.min_by_key(|(edits, _)| *edits).map(|(_, c)| c)
}

/// Defines a table as written: every field optional, unknown keys refused, and what a later version
/// will have named as such. `"key" => field` where the key is a word of Rust.
macro_rules! written {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($(#[$doc:meta])* $name:ident {
        $($(#[$about:meta])* $($key:literal =>)? $field:ident: $form:ty,)*
    } later { $($later:literal: $what:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $($(#[$about])* pub(super) $field: $crate::settings::written::Field<$form>,)*
        }

        impl $name {
            /// The keys of this table, as they are written.
            pub(super) const KEYS: &[&str] = &[$(written!(@key $field $($key)?),)*];
            const LATER: &[(&str, &str)] = &[$(($later, $what),)*];
        }

        impl $crate::settings::written::Written for $name {
            fn read(
                node: &$crate::settings::written::Node<'_>,
                name: &str,
                report: &$crate::settings::problems::Report<'_>,
            ) -> Option<Self> {
                use $crate::settings::written;
                let table = written::table(node, name, report)?;
                let mut read = Self::default();
                for (key, value) in written::in_order(table) {
                    match key.get_ref().as_ref() {
                        $(written!(@key $field $($key)?) => {
                            let path = written::path(name, written!(@key $field $($key)?));
                            read.$field = written::Written::field(value, &path, report);
                        })*
                        _ => {
                            let meant = written::unknown(key, name, Self::KEYS, Self::LATER, report);
                            $(if meant == Some(written!(@key $field $($key)?)) && read.$field.is_absent() {
                                read.$field = written::Field::Wrong(key.span());
                            })*
                        }
                    }
                }
                Some(read)
            }
        }
    };
}
pub(super) use written;
