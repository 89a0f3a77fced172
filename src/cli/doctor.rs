//! `doctor`: tries everything that can be tried without a person, and says who must do what.

use serde_json::json;

use super::{CliError, Session, actor, json, show};
use crate::client::{printable, within};
use crate::pb;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

pub(super) async fn run(session: &mut Session<'_, '_>, _: Args) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    let remote = session.remote().await?;
    writeln!(session.console.err, "checking {account_id}: Entra, Azure DevOps, and the broker itself …")?;
    let request = pb::CheckIntegrationRequest { account_id: account_id.clone(), actor: actor() };
    let mut client = remote.integrations();
    let report = client.check_integration(within(CHECK_TIMEOUT, request)).await?.into_inner();
    let console = &mut *session.console;
    if console.json {
        let check = |check: &pb::Check| {
            json!({
                "name": check.name,
                "outcome": show::word(check.outcome().as_str_name(), "CHECK_OUTCOME_"),
                "reason": check.reason,
                "message": check.message,
                "help_url": check.help_url,
            })
        };
        let checks: Vec<_> = report.checks.iter().map(check).collect();
        console
            .print_json(&json!({ "checks": checks, "checked_at": json::at(report.checked_at.as_ref()) }))?;
    } else {
        for check in &report.checks {
            let (name, message) = (printable(&check.name), printable(&check.message));
            writeln!(console.out, "{:<4}  {name:<17}  {message}", word(check.outcome()))?;
            if !check.help_url.is_empty() {
                writeln!(console.out, "{:25}see {}", "", printable(&check.help_url))?;
            }
        }
    }
    match report.checks.iter().filter(|check| check.outcome() == pb::CheckOutcome::Failed).count() {
        0 => Ok(()),
        failed => Err(CliError::Failed(format!("{failed} of {} checks failed", report.checks.len()))),
    }
}

fn word(outcome: pb::CheckOutcome) -> &'static str {
    match outcome {
        pb::CheckOutcome::Passed => "ok",
        pb::CheckOutcome::Warned => "warn",
        pb::CheckOutcome::Failed => "FAIL",
        pb::CheckOutcome::Skipped | pb::CheckOutcome::Unspecified => "-",
    }
}

/// Entra and Azure DevOps are asked one after the other; a large organization's list takes long.
const CHECK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(92);

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;

    fn broker(outcome: pb::CheckOutcome) -> Fake {
        Fake::default().on("Integrations/CheckIntegration", move |_: pb::CheckIntegrationRequest| {
            let check = pb::Check {
                name: "tenant".into(),
                outcome: outcome.into(),
                message: "Entra knows no tenant\u{1b}[2J: enter the Directory (tenant) ID".into(),
                ..Default::default()
            };
            Ok(pb::CheckIntegrationResponse { checks: vec![check], ..Default::default() })
        })
    }

    #[tokio::test]
    async fn each_line_says_how_it_is_and_a_failed_check_fails_the_command() {
        let ran = Run::new(&["doctor"]).against(broker(pb::CheckOutcome::Failed)).await;
        assert_eq!(ran.exit, Exit::Failed);
        assert!(ran.out.starts_with("FAIL  tenant") && ran.err.contains("1 of 1 checks failed"), "{ran:?}");
        assert!(!ran.out.contains('\u{1b}'));
        let ran = Run::new(&["doctor"]).against(broker(pb::CheckOutcome::Warned)).await;
        assert_eq!(ran.exit, Exit::Done);
        let ran = Run::new(&["doctor", "--json"]).against(broker(pb::CheckOutcome::Passed)).await;
        assert!(ran.out.contains(r#""outcome": "passed""#), "{ran:?}");
    }
}
