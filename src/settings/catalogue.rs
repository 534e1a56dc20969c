//! Every model that kinds may name: `[models.NAME]`, and `provider/model` of the built-in providers.
//!
//! A model is resolved once, when the first kind names it, and its secrets are read then; a section
//! that no kind names is checked all the same, without its secrets.

use super::context::Context;
use super::model;
use super::raw::RawModel;
use super::written::{Named, closest};
use crate::infer::{Model, provider};
use std::cell::RefCell;
use std::sync::Arc;
use toml::Spanned;

pub(super) struct Catalogue<'r> {
    sections: &'r Named<RawModel>,
    /// `None`: looked at, and wrong; the report has it.
    made: RefCell<Vec<(String, Option<Arc<Model>>)>>,
}

impl<'r> Catalogue<'r> {
    pub(super) fn new(sections: &'r Named<RawModel>) -> Self {
        Catalogue { sections, made: RefCell::default() }
    }

    /// The model that a kind names, which may see tasks labelled `data`.
    pub(super) fn model(
        &self,
        name: &Spanned<String>,
        data: Option<&str>,
        cx: &Context<'_>,
    ) -> Option<Arc<Model>> {
        let model = self.resolved(name, cx);
        if let Some(label) = data {
            self.check_allowed(name, label, cx);
        }
        model
    }

    fn resolved(&self, name: &Spanned<String>, cx: &Context<'_>) -> Option<Arc<Model>> {
        let wanted = name.get_ref();
        let known = self.made.borrow().iter().find(|(n, _)| n == wanted).map(|(_, m)| m.clone());
        if let Some(model) = known {
            return model;
        }
        let section = self.section(wanted);
        if section.is_none() && !is_built_in(wanted) {
            // Not remembered: each line that names it must be mended.
            self.unknown(name, cx);
            return None;
        }
        let model = model::resolve(name, section, true, cx).map(Arc::new);
        self.made.borrow_mut().push((wanted.clone(), model.clone()));
        model
    }

    fn section(&self, name: &str) -> Option<(&Spanned<String>, &RawModel)> {
        self.sections.0.iter().find(|(n, _)| n.get_ref() == name).map(|(n, raw)| (n, raw))
    }

    fn unknown(&self, name: &Spanned<String>, cx: &Context<'_>) {
        let word = name.get_ref();
        let mut all: Vec<&str> = self.sections.0.iter().map(|(n, _)| n.get_ref().as_str()).collect();
        for known in provider::known_models() {
            all.push(known);
        }
        let near = closest(word, all);
        let vendor = word.split_once('/').map(|(vendor, _)| vendor);
        let near_vendor = vendor.and_then(|v| closest(v, provider::names()));
        let help = match (near, vendor, near_vendor) {
            (Some(near), _, _) => format!("did you mean `{near}`?"),
            (None, Some(vendor), Some(near)) => {
                format!("did you mean `{near}{}`?", &word[vendor.len()..])
            }
            _ => {
                let built_in = provider::names().collect::<Vec<_>>().join(", ");
                format!(
                    "name a model of {built_in} as `provider/model`, or describe it in [models.{}] \
                         with api, url, model and window_tokens",
                    quoted(word)
                )
            }
        };
        cx.report.add(name.span(), format!("there is no model `{word}`"), help);
    }

    /// The label must be on the model wherever the kind could reach it.
    fn check_allowed(&self, name: &Spanned<String>, label: &str, cx: &Context<'_>) {
        let word = name.get_ref();
        let section = self.section(word);
        let allowed = section.and_then(|(_, raw)| raw.allows.get()).map_or(&[][..], Vec::as_slice);
        let exists = section.is_some() || is_built_in(word);
        if exists && !allowed.iter().any(|a| a.get_ref() == label) {
            let what = format!("`{word}` may not see tasks with data = \"{label}\"");
            let help = format!(
                "take it out of this kind; or, if its provider may have such data, add \
                                allows = [\"{label}\"] to [models.{}]",
                quoted(word)
            );
            cx.report.add(name.span(), what, help);
        }
    }

    /// Checks the sections that no kind named; gives the models that were.
    pub(super) fn finish(self, cx: &Context<'_>) -> Vec<Arc<Model>> {
        for (name, raw) in &self.sections.0 {
            if !self.made.borrow().iter().any(|(n, _)| n == name.get_ref()) {
                // Only for what it reports.
                let _unused = model::resolve(name, Some((name, raw)), false, cx);
            }
        }
        self.made.into_inner().into_iter().filter_map(|(_, model)| model).collect()
    }
}

/// As a key in TOML.
pub(super) fn quoted(name: &str) -> String {
    super::written::path("", name)
}

fn is_built_in(name: &str) -> bool {
    name.split_once('/').is_some_and(|(vendor, model)| !model.is_empty() && provider::find(vendor).is_some())
}
