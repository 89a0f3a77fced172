//! Logs: to stderr, as text for a terminal and as JSON otherwise.
//!
//! Libraries below are capped at `info` whatever the filter says: HTTP stacks write headers and bodies
//! at `trace`, and those hold tokens (P1, threat T09).
//!
//! An error is written with all its sources, in either form: the first one names what was done, and the last
//! one why it failed.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal as _;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// One line of JSON for each event. The library's own leaves the sources of errors out.
struct JsonLine;

/// What an event says.
#[derive(Default)]
struct Fields(Map<String, Value>);

/// Starts logging. `level` is what our own code may say: `info`, `debug`, `trace`.
pub fn start(level: LevelFilter) {
    let ours = FilterFn::new(|metadata| {
        metadata.target().starts_with("azdo_broker") || *metadata.level() <= Level::INFO
    });
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if std::io::stderr().is_terminal() {
        to_stderr.boxed()
    } else {
        to_stderr.event_format(JsonLine).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(level).with_filter(ours)).init();
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields(mut fields) = fields;
        // What comes by way of the `log` crate says so, and only there what it is about.
        let target = fields.remove("log.target").unwrap_or_else(|| event.metadata().target().into());
        fields.retain(|name, _| !name.starts_with("log."));
        let level = event.metadata().level().as_str();
        let line = json!({ "timestamp": timestamp, "level": level, "target": target, "fields": fields });
        writeln!(writer, "{line}")
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, value.to_string());
        let sources: Vec<Value> = std::iter::successors(value.source(), |&error| error.source())
            .map(|source| source.to_string().into())
            .collect();
        if !sources.is_empty() {
            self.0.insert(format!("{}.sources", field.name()), sources.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store cannot be reached")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("a connection broke")]
    struct Inner(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_json_tells_an_error_with_all_its_sources() {
        let written = Written::default();
        let to = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || to.clone()).event_format(JsonLine);
        let error = Outer(Inner(io::Error::other("no route")));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(error = &error as &dyn Error, count = 3, is_new = true, "it \"failed\"");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        let fields = json!({
            "message": "it \"failed\"",
            "error": "the store cannot be reached",
            "error.sources": ["a connection broke", "no route"],
            "count": 3,
            "is_new": true,
        });
        assert_eq!((&line["fields"], &line["level"]), (&fields, &json!("WARN")));
        assert!(text.ends_with('\n') && line["timestamp"].is_string());
    }
}
