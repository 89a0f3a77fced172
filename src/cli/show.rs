//! Tables, times and sizes as people like to read them. Programs read JSON instead.

use std::io::{self, Write};

use jiff::Timestamp;

use crate::client::printable;
use crate::pb;

/// Columns under their headings, aligned by two blanks and nothing else.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Names and what they are, one a line.
pub(super) fn print_facts(out: &mut dyn Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, fact) in facts {
        writeln!(out, "{name:<width$}  {}", printable(fact))?;
    }
    Ok(())
}

pub(super) fn print_warnings(err: &mut dyn Write, warnings: &[pb::Warning]) -> io::Result<()> {
    for warning in warnings {
        writeln!(err, "warning: {} [{}]", printable(&warning.text), printable(&warning.code))?;
    }
    Ok(())
}

/// The time on our calendar, if there is one and it fits.
pub(super) fn time(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
}

/// `in 58 min (2026-11-22T23:46:00Z)`, `3 h ago (…)`, or a hyphen.
pub(super) fn when(at: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(at) = time(at) else { return "-".to_owned() };
    let seconds = at.as_second() - now.as_second();
    let span = span(seconds.unsigned_abs());
    let second = Timestamp::from_second(at.as_second()).unwrap_or(at);
    match seconds {
        ..0 => format!("{span} ago ({second})"),
        0 => format!("just now ({second})"),
        1.. => format!("in {span} ({second})"),
    }
}

fn span(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

/// `12.3 MiB`.
pub(super) fn size(bytes: i64) -> String {
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let (unit, name) = match bytes {
        0..1_024 => return format!("{bytes} B"),
        1_024..1_048_576 => (1_024, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576, "MiB"),
        _ => (1_073_741_824, "GiB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// `svc@contoso.com (Build Service)`, or what of it is known.
pub(super) fn identity(identity: Option<&pb::Identity>) -> String {
    let Some(identity) = identity else { return "-".to_owned() };
    let login = if identity.login.is_empty() { &identity.object_id } else { &identity.login };
    let text = if identity.display_name.is_empty() {
        login.clone()
    } else {
        format!("{login} ({})", identity.display_name)
    };
    printable(&text)
}

/// `service_user`, `service_principal`, `developer/ana`.
pub(super) fn connection_name(name: Option<&pb::ConnectionName>) -> String {
    let Some(name) = name else { return "-".to_owned() };
    match name.role() {
        pb::Role::Unspecified => "-".to_owned(),
        pb::Role::ServiceUser => "service_user".to_owned(),
        pb::Role::ServicePrincipal => "service_principal".to_owned(),
        pb::Role::Developer => format!("developer/{}", printable(&name.developer_id)),
    }
}

/// `CONNECTION_STATE_NEEDS_RELINK` as `needs_relink`: the word of tables and JSON.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now_and_in_full() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let at = |seconds: i64| prost_types::Timestamp { seconds: 1_700_000_000 + seconds, nanos: 500 };
        assert_eq!(when(Some(&at(58 * 60 + 10)), now), "in 58 min (2023-11-14T23:11:30Z)");
        assert_eq!(when(Some(&at(-3 * 3600)), now), "3 h ago (2023-11-14T19:13:20Z)");
        assert_eq!(when(None, now), "-");
    }

    #[test]
    fn a_table_aligns_and_obeys_no_escape() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["analytics".into(), size(12_900_000)]);
        table.row(["\x1b[2Jevil\u{202e}".into(), size(7)]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME       SIZE\nanalytics  12.3 MiB\n\u{fffd}[2Jevil\u{fffd}  7 B\n");
    }
}
