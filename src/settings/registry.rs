//! `[registry]` as meant: where the schemas of Avro records come from. The keys' meaning, defaults and
//! ranges stand in `raw.rs`.

use super::bounds::within;
use super::context::Context;
use super::kind::{Format, Kind, Shape};
use super::raw::{RawKind, RawRegistry};
use super::secret;
use super::written::{Field, Named, path};
use crate::avro::{Access, Auth, Registry, Schema, Source, result_schema};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What stands for a file in `schemas` where the program's own schema is meant.
const OWN: &str = "tidegate:result:1";

/// `None`: there is no such section, or what it says is wrong.
pub(super) fn resolve(raw: &Field<RawRegistry>, cx: &Context<'_>) -> Option<Source> {
    let section = raw.given()?;
    let raw = section.get_ref();
    match (raw.url.given(), raw.schemas.given()) {
        (Some(_), Some(schemas)) => {
            let what = "`registry` has both a `url` and `schemas`";
            cx.report.add(schemas.span(), what, "files are for where there is no registry: keep one of them");
            None
        }
        (Some(_), None) => access(raw, cx).map(|access| Source::Registry(Registry::new(access))),
        (None, Some(_)) => Some(Source::files(files(raw, cx))),
        (None, None) if raw.url.is_absent() && raw.schemas.is_absent() => {
            let help = "give its url = \"http://…\"; or, where there is none, the files: schemas = { 7 = \"order.avsc\" }";
            cx.report.add(section.span(), "`registry` has neither a `url` nor `schemas`", help);
            None
        }
        (None, None) => None,
    }
}

fn access(raw: &RawRegistry, cx: &Context<'_>) -> Option<Access> {
    let url = raw.url.given()?;
    let second = Duration::from_secs(1);
    let timeout = within(&raw.timeout, "registry.timeout", second / 10..=second * 60, cx.report);
    let auth = auth(raw, cx);
    let access = Access::new(url.get_ref(), auth, timeout.unwrap_or(second * 5), raw.register.or(true));
    if access.is_none() {
        let help = "\"http://host:8081\" or \"https://…\", without a name, a password or a query";
        cx.report.add(url.span(), "`registry.url` is not the address of a registry", help);
    }
    access
}

fn auth(raw: &RawRegistry, cx: &Context<'_>) -> Option<Auth> {
    let secret = |field: &Field<secret::SecretRef>, name: &str| -> Option<SecretString> {
        let given = field.given()?;
        match secret::read(given.get_ref(), cx.base, cx.env) {
            Ok(value) => Some(value),
            Err(e) => {
                let what = format!("`registry.{name}` cannot be read: {e}");
                cx.report.add(given.span(), what, given.get_ref().remedy());
                None
            }
        }
    };
    let (password, token) = (secret(&raw.password, "password"), secret(&raw.token, "token"));
    match (raw.user.given(), raw.token.given()) {
        (Some(user), Some(_)) => {
            let help = "a registry asks for one of them";
            cx.report.add(user.span(), "`registry` has both a `user` and a `token`", help);
            None
        }
        (Some(user), None) if raw.password.is_absent() => {
            let help = "add password = \"env:NAME\"";
            cx.report.add(user.span(), "`registry` has a `user` and no `password`", help);
            None
        }
        (Some(user), None) => password.map(|password| Auth::Basic { user: user.get_ref().clone(), password }),
        (None, _) => {
            if let Some(given) = raw.password.given() {
                cx.report.add(given.span(), "`registry` has a `password` and no `user`", "add user = \"…\"");
            }
            token.map(Auth::Bearer)
        }
    }
}

fn files(raw: &RawRegistry, cx: &Context<'_>) -> BTreeMap<u32, Arc<Schema>> {
    let mut found = BTreeMap::new();
    for (name, file) in &raw.schemas.or_default().0 {
        let Ok(id) = name.get_ref().parse::<u32>() else {
            let what = format!("`registry.schemas.{}` is not named for an id", name.get_ref());
            cx.report.add(name.span(), what, "the number that stands in each record: 7 = \"order.avsc\"");
            continue;
        };
        let schema = if file == OWN {
            result_schema()
        } else {
            let Some(text) = cx.file(file, name.span(), "schema") else { continue };
            Schema::parse(&text)
        };
        match schema {
            Ok(schema) => {
                found.insert(id, Arc::new(schema));
            }
            Err(e) => {
                let what = format!("{file} cannot be used: {e}");
                cx.report.add(name.span(), what, "an Avro schema (.avsc), whole in one file");
            }
        }
    }
    found
}

/// Whether each kind has what its formats take.
pub(super) fn fits(
    tasks: &Named<RawKind>,
    raw: &Field<RawRegistry>,
    source: Option<&Source>,
    kinds: &[Arc<Kind>],
    cx: &Context<'_>,
) {
    // What is wrong with the section has been told.
    let missing = raw.is_absent();
    for kind in kinds {
        let Some((_, raw)) = tasks.0.iter().find(|(name, _)| name.get_ref() == &*kind.name) else { continue };
        let place = path("tasks", &kind.name);
        let (reads, writes) = (kind.format == Format::Avro, kind.result_format == Format::Avro);
        let span = |field: &Field<String>| field.span().unwrap_or_default();
        if let Some(at) = [(reads, &raw.format), (writes, &raw.result_format)].iter().find(|(avro, _)| *avro)
            && missing
        {
            let help = "add [registry] with url = \"http://…\", or with schemas = { 7 = \"order.avsc\" }";
            cx.report.add(span(at.1), format!("`{place}` is Avro, and there is no schema registry"), help);
        }
        let other = kinds.iter().find(|other| other.to == kind.to && other.result_format == Format::Json);
        if let (true, Some(other)) = (writes, other) {
            let what = format!(
                "`{}` writes Avro to `{}`, and `{}` writes JSON there",
                kind.name, kind.to, other.name
            );
            let help = "whoever reads a topic expects one of them: give this kind a topic of its own by `to`, or \
                        the other one the same `result_format`";
            cx.report.add(span(&raw.result_format), what, help);
        }
        if writes && kind.shape == Shape::Answer {
            let help = "bare answers are JSON; leave `shape` out for the envelope in Avro, or `result_format` for JSON";
            let what = format!("`{place}` has shape = \"answer\" and result_format = \"avro\"");
            cx.report.add(span(&raw.result_format), what, help);
        }
        if writes && matches!(source, Some(Source::Files { result: None, .. })) {
            let help = format!("add the id that stands for it: [registry] schemas = {{ 12 = \"{OWN}\" }}");
            let what = format!("`{place}` writes Avro, and no id is given for the schema of results");
            cx.report.add(span(&raw.result_format), what, help);
        }
        if let (Some(given), Some(id)) = (raw.intake_schema.given(), kind.intake_schema) {
            if !reads {
                let what = format!("`{place}.intake_schema` is given, and its records are JSON");
                cx.report.add(given.span(), what, "add format = \"avro\", or leave it out");
            }
            if matches!(source, Some(Source::Files { by_id, .. }) if !by_id.contains_key(&id)) {
                let what = format!("`{place}.intake_schema` is {id}, and no file is given for that");
                cx.report.add(given.span(), what, "one of those in [registry] schemas");
            }
        }
    }
}
