//! Developers: one links by the platform's own pages, another arrives from an older system.

use serde_json::json;
use url::Url;

use crate::browser::{Browser, behind_proxy, plain_http};
use crate::calls::Service;
use crate::narrator::Narrator;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes;
use crate::story::{CLIENT, CLIENT_SECRET, TENANT};
use crate::world::{ACCOUNT, World};

pub(crate) const DEVELOPER: &str = "ana";
const DEVELOPERS_LOGIN: &str = "ana@contoso.com";
/// Who was linked in the system before.
const MOVED: &str = "ben";
const MOVED_LOGIN: &str = "ben@contoso.com";

/// Front B: the platform sends the developer to Entra itself, receives the redirect in its own session,
/// and hands over what came.
pub(crate) async fn link_developer(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("developer");
    let platform = Service::connect(world, "ide-backend").await?;
    let begun = platform.begin_developer(ACCOUNT, DEVELOPER, DEVELOPERS_LOGIN).await?;
    let mut browser = Browser::new()?;
    let sign_in = browser.open(&begun.authorize_url).await?;
    sign_in.expect("Who are you?")?;
    let choices = [("user", DEVELOPERS_LOGIN), ("action", "accept")];
    let redirect = browser.leave_to(&sign_in, &choices, "/complete/azure_active_directory").await?;
    let (state, code) = (field(&redirect, "state")?, field(&redirect, "code")?);
    ensure(state == begun.state, || "the redirect is of another session".to_owned())?;
    let mut redirect_uri = redirect;
    redirect_uri.set_query(None);
    let link = platform.complete(ACCOUNT, redirect_uri.as_str(), state, code).await?;
    let who = link.identity.map(|identity| identity.login).unwrap_or_default();
    ensure(who == DEVELOPERS_LOGIN, || format!("the link is of {who:?}: {}", link.message))?;
    platform.confirm(ACCOUNT, &begun.link_id).await?;
    let token = platform.developer_token(ACCOUNT, DEVELOPER).await?;
    narrator.show(&format!(
        "the platform's own pages linked {DEVELOPER} as {who}; her token: fingerprint {}",
        token.token_fingerprint
    ));
    Ok(())
}

/// Another system hands over the refresh token it holds; the broker seals it and proves whose it is.
pub(crate) async fn import(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("import");
    let line = json!({
        "role": "developer",
        "developer_id": MOVED,
        "refresh_token": grant_of_another_system(world).await?,
    });
    let command = world.command_line("operator", &["import"]);
    let said =
        processes::run("azdo-broker import", command, Some(&format!("{line}\n")), &world.log()).await?;
    let proven = said.out.contains(&format!("developer/{MOVED}  connected  {MOVED_LOGIN}"));
    ensure(proven, || format!("not proven: {}{}", said.out, said.err))?;
    narrator.show(&format!(
        "azdo-broker import: {MOVED}'s refresh token from an older system, sealed, and proven to be {MOVED_LOGIN}'s"
    ));
    Ok(())
}

/// What the platform used before: the same app, its own sign-in.
async fn grant_of_another_system(world: &World) -> Outcome<String> {
    let login = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0");
    let redirect_uri = "http://localhost/complete/azure_active_directory";
    let scope = "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation offline_access openid profile";
    let query = [
        ("client_id", CLIENT),
        ("response_type", "code"),
        ("redirect_uri", redirect_uri),
        ("scope", scope),
        ("state", "older"),
    ];
    let authorize_url = Url::parse_with_params(&format!("{login}/authorize"), query)?;
    let sign_in = json!({ "authorize_url": authorize_url, "user": MOVED_LOGIN });
    let url = format!("{}/_emu/sign-in", world.emulator.control);
    let answer: serde_json::Value = plain_http()?.post(url).json(&sign_in).send().await?.json().await?;
    let location = answer["location"].as_str().ok_or("the emulator signs nobody in")?;
    let code = field(&location.parse().context(location)?, "code")?;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT),
        ("client_secret", CLIENT_SECRET),
        ("redirect_uri", redirect_uri),
        ("code", &code),
        ("scope", scope),
    ];
    let http = behind_proxy(&world.emulator.proxy, &world.emulator.ca)?;
    let answer: serde_json::Value =
        http.post(format!("{login}/token")).form(&form).send().await?.json().await?;
    let grant = answer["refresh_token"].as_str().ok_or("the emulator issued no refresh token")?;
    Ok(grant.to_owned())
}

fn field(url: &Url, name: &str) -> Outcome<String> {
    let found = url.query_pairs().find(|(key, _)| key == name);
    Ok(found.map(|(_, value)| value.into_owned()).ok_or_else(|| format!("the redirect has no {name}"))?)
}
