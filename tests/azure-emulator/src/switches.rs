//! The switches that are on: where, how often, and until when.
//!
//! A request is answered in one task from beginning to end, which carries its [`Place`]: handlers ask for a
//! switch, and whether it is meant for this tenant or organization is decided here.

use jiff::{SignedDuration, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::fault::Fault;

/// Where and how long a switch is on: everywhere and until it is cleared, if nothing is said.
///
/// State changes (`user.disable` and so on) are made at once, whatever stands here.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Within {
    /// Requests to Entra for this tenant, by id or domain.
    pub tenant: Option<String>,
    /// Requests to Azure DevOps for this organization.
    pub organization: Option<String>,
    /// By the emulator's clock.
    pub seconds: Option<u64>,
}

/// In JSON: `{"switch": "entra.5xx", "within": {"tenant": "contoso.com", "seconds": 60}}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Switch {
    #[serde(flatten)]
    pub(crate) fault: Fault,
    #[serde(skip_serializing_if = "Within::is_everywhere")]
    pub(crate) within: Within,
}

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// As its first segment names it, and as the world knows it.
    pub(crate) tenant: Vec<String>,
    pub(crate) organization: Option<String>,
    pub(crate) now: Timestamp,
}

tokio::task_local! {
    /// The place of the request that this task answers.
    static HERE: Place;
}

/// The switches that are on, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Switches(Vec<Active>);

#[derive(Debug)]
struct Active {
    switch: Switch,
    left: Option<u32>,
    until: Option<Timestamp>,
}

/// Answers a request with the switches of its place.
pub(crate) async fn at<T>(place: Place, answering: impl Future<Output = T>) -> T {
    HERE.scope(place, answering).await
}

impl Switches {
    pub(crate) fn switch_on(&mut self, switch: Switch, now: Timestamp) {
        let left = switch.fault.count();
        let seconds = switch.within.seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let until = seconds.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
        if left != Some(0) {
            self.0.push(Active { switch, left, until });
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Switches off those that match.
    pub(crate) fn remove(&mut self, matches: impl Fn(&Fault) -> bool) {
        self.0.retain(|active| !matches(&active.switch.fault));
    }

    /// The newest switch that matches here, without using it up.
    pub(crate) fn find(&self, matches: impl Fn(&Fault) -> bool) -> Option<&Fault> {
        let here = self.0.iter().rev().filter(|active| active.is_on_here());
        here.map(|active| &active.switch.fault).find(|fault| matches(fault))
    }

    /// The oldest switch that matches here, used once.
    pub(crate) fn take(&mut self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let index = self.0.iter().position(|active| active.is_on_here() && matches(&active.switch.fault))?;
        let active = &mut self.0[index];
        let fault = active.switch.fault.clone();
        if let Some(left) = &mut active.left {
            *left -= 1;
            if *left == 0 {
                self.0.remove(index);
            }
        }
        Some(fault)
    }

    /// Those that are not over.
    pub(crate) fn all(&self, now: Timestamp) -> Vec<Switch> {
        let on = self.0.iter().filter(|active| active.until.is_none_or(|until| now < until));
        on.map(|active| active.switch.clone()).collect()
    }
}

impl Active {
    fn is_on_here(&self) -> bool {
        let within = &self.switch.within;
        let is_here = |place: &Place| {
            let is = |wanted: &Option<String>, names: &[String]| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| names.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
            };
            is(&within.tenant, &place.tenant)
                && is(&within.organization, place.organization.as_slice())
                && self.until.is_none_or(|until| place.now < until)
        };
        HERE.try_with(is_here).unwrap_or(*within == Within::default())
    }
}

impl Within {
    fn is_everywhere(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Fault> for Switch {
    fn from(fault: Fault) -> Self {
        Self { fault, within: Within::default() }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut fields: Map<String, Value> = Map::deserialize(from)?;
        let within = fields.remove("within").map(serde_json::from_value).transpose();
        let within = within.map_err(D::Error::custom)?.unwrap_or_default();
        let fault = serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { fault, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_switch_turns_itself_off() {
        let mut switches = Switches::default();
        switches.switch_on(Fault::EntraHtml { count: Some(2) }.into(), Timestamp::UNIX_EPOCH);
        let is_html = |fault: &Fault| matches!(fault, Fault::EntraHtml { .. });

        assert!(switches.take(is_html).is_some());
        assert!(switches.take(is_html).is_some());
        assert!(switches.take(is_html).is_none());
    }

    #[test]
    fn where_a_switch_is_on_is_told_and_read_beside_it() {
        let text = r#"{"switch":"ado.5xx","count":1,"within":{"organization":"contoso"}}"#;
        let switch: Switch = serde_json::from_str(text).unwrap();

        assert_eq!(switch.within.organization.as_deref(), Some("contoso"));
        let again = serde_json::to_value(&switch).unwrap();
        assert_eq!(serde_json::from_value::<Switch>(again).unwrap(), switch);
        for wrong in [r#"{"switch":"git.v2","within":{"org":"x"}}"#, r#"{"switch":"git.v2","where":{}}"#] {
            assert!(serde_json::from_str::<Switch>(wrong).is_err(), "{wrong}");
        }
    }
}
