//! The forms of a page, as a browser without JavaScript sees them.
//!
//! It reads the pages of this repository, not the web: quoted attributes, no scripts, no comments.

use std::collections::HashMap;

use crate::outcome::Outcome;

/// The first form of a page.
#[derive(Default)]
pub(crate) struct Form {
    pub(crate) action: Option<String>,
    pub(crate) method: String,
    fields: Vec<Field>,
}

struct Field {
    kind: String,
    name: String,
    value: String,
    checked: bool,
}

impl Form {
    pub(crate) fn read(page: &str) -> Option<Self> {
        let mut form: Option<Self> = None;
        for tag in page.split('<').skip(1).filter_map(|rest| rest.split_once('>').map(|(tag, _)| tag)) {
            let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
            let mut attributes = read_attributes(attributes);
            match (name, &mut form) {
                ("form", None) => {
                    let method = attributes.remove("method").unwrap_or_else(|| "get".into());
                    form = Some(Self { action: attributes.remove("action"), method, fields: Vec::new() });
                }
                ("/form", Some(_)) => break,
                ("input" | "button", Some(form)) => form.fields.push(Field {
                    kind: attributes.remove("type").unwrap_or_else(|| name.to_owned()),
                    name: attributes.remove("name").unwrap_or_default(),
                    value: attributes.remove("value").unwrap_or_default(),
                    checked: attributes.contains_key("checked"),
                }),
                _ => {}
            }
        }
        form
    }

    /// What is sent when a person makes these choices; each must be on offer.
    pub(crate) fn fill(&self, choices: &[(&str, &str)]) -> Outcome<Vec<(String, String)>> {
        let chosen = |field: &Field| choices.iter().find(|(name, _)| *name == field.name);
        for (name, value) in choices {
            if !self.fields.iter().any(|field| field.name == *name && field.value == *value) {
                return Err(format!("the page does not offer {name} = {value}").into());
            }
        }
        let sent = self.fields.iter().filter(|field| match (chosen(field), field.kind.as_str()) {
            (Some((_, value)), _) => field.value == *value,
            (None, "radio" | "checkbox") => field.checked,
            (None, kind) => kind != "button" && kind != "submit",
        });
        Ok(sent
            .filter(|field| !field.name.is_empty())
            .map(|field| (field.name.clone(), field.value.clone()))
            .collect())
    }
}

fn read_attributes(mut text: &str) -> HashMap<String, String> {
    let mut attributes = HashMap::new();
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return attributes;
        }
        let (value, rest) = match rest.strip_prefix("=\"").and_then(|quoted| quoted.split_once('"')) {
            Some((value, rest)) => (unescape(value), rest),
            None => (String::new(), rest.trim_start_matches('=')),
        };
        attributes.insert(name.to_ascii_lowercase(), value);
        text = rest;
    }
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}
