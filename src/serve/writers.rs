//! What the tasks of a request are written with: nothing for kinds of JSON, a schema for those of Avro.
//!
//! Asked for before any of them is checked, once per kind.

use super::App;
use super::error::ApiError;
use super::intake::Read;
use crate::avro::{Away, NoWriter, Schema};
use crate::settings::{Format, Kind};
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) type Writer = (u32, Arc<Schema>);

/// By the names of the kinds of Avro that the request has tasks of.
#[derive(Default)]
pub(super) struct Writers(HashMap<Arc<str>, Result<Writer, NoWriter>>);

impl Writers {
    pub(super) async fn of<'a>(app: &App, reads: impl Iterator<Item = &'a Read>) -> Writers {
        let mut found = HashMap::new();
        for entry in reads.filter_map(|read| read.as_ref().ok()) {
            let Some(kind) = app.kinds.named(&entry.kind) else { continue };
            if kind.format == Format::Avro && !found.contains_key(&kind.name) {
                let writer = app.kinds.schemas().writer(&kind.from, kind.intake_schema).await;
                found.insert(kind.name.clone(), writer);
            }
        }
        Writers(found)
    }

    pub(super) fn writer(&self, kind: &Kind) -> Result<Option<&Writer>, ApiError> {
        match self.0.get(&kind.name) {
            None => Ok(None),
            Some(Ok(writer)) => Ok(Some(writer)),
            Some(Err(NoWriter::Away(Away(why)))) => {
                let help = "the task was not stored; send the same request again";
                let what = format!("tasks of `{}` cannot be written now: {why}", kind.name);
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "registry-away", what, help))
            }
            Some(Err(NoWriter::None(why))) => {
                let help = "register one for the subject of its topic, or give the kind an `intake_schema`; \
                            records that are Avro already can be put on its topic as they are";
                let what =
                    format!("`{}` reads Avro, and there is no schema to write a task with: {why}", kind.name);
                Err(ApiError::new(StatusCode::CONFLICT, "no-schema", what, help))
            }
        }
    }
}
