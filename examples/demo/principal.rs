//! The account moves from its service user to the app's own service principal, and back.

use serde_json::{Value, json};

use crate::narrator::{Narrator, more};
use crate::outcome::{Context as _, Outcome, ensure};
use crate::story::{CLIENT, SERVICE_USER, put};
use crate::world::World;

/// Connected first, compared then, switched last: no job is without its repositories in between.
pub(crate) async fn switch(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("principal");
    // What an administrator of the organization does: adds the app as a member.
    world.change(json!({ "change": "member.add", "organization": "contoso", "user": CLIENT })).await?;
    let connect = world.command_line("operator", &["connections", "connect-service-principal"]);
    world.run("azdo-broker connect-service-principal", connect).await?;
    let compare = world.command_line("operator", &["repos", "--compare"]);
    let compared = world.run("azdo-broker repos --compare", compare).await?;
    narrator.show(&format!("azdo-broker repos --compare: {}", compared.err.trim()));
    more(&compared.out);

    put(world, &["--headless", "service-principal"]).await?;
    let principal = headless(world).await?;
    ensure(principal["connection"] == "service_principal", || format!("released was {principal}"))?;
    put(world, &["--headless", "service-user"]).await?;
    let user = headless(world).await?;
    ensure(user["identity"]["login"] == SERVICE_USER, || format!("released was {user}"))?;
    narrator.show(&format!(
        "jobs of acme ran as {}, and are {SERVICE_USER} again",
        principal["identity"]["display_name"].as_str().unwrap_or_default()
    ));
    Ok(())
}

/// What a job gets.
async fn headless(world: &World) -> Outcome<Value> {
    let said = world.run("azdo-broker token", world.command_line("job-runner", &["token", "--json"])).await?;
    serde_json::from_str(&said.out).context("azdo-broker token")
}
