//! What people see: the sign-in page and messages. No script is needed and nothing is loaded
//! from elsewhere.

use std::fmt::Write as _;

use crate::world::World;

/// The page on which one chooses who to be. The form goes back to its own address.
pub(super) fn sign_in(world: &World, app: &str, scopes: &[String], hint: Option<&str>) -> String {
    let mut users = String::new();
    for (index, user) in world.users.iter().enumerate() {
        let checked = hint.map_or(index == 0, |hint| hint.eq_ignore_ascii_case(&user.upn));
        let checked = if checked { " checked" } else { "" };
        let tenant = world.tenant(&user.tenant).map_or("", |tenant| tenant.name());
        let _ = writeln!(
            users,
            "<label><input type=\"radio\" name=\"user\" value=\"{upn}\" required{checked}> \
             <span><strong>{name}</strong><br>{upn} · {tenant}</span></label>",
            upn = escape(&user.upn),
            name = escape(&user.name),
            tenant = escape(tenant),
        );
    }
    let scopes = scopes
        .iter()
        .map(|scope| format!("<li><code>{}</code></li>", escape(scope)))
        .collect::<Vec<_>>()
        .concat();
    page(
        "Sign in",
        &format!(
            "<p class=\"note\">This is an emulator. It asks for no password.</p>\n\
             <form method=\"post\">\n<fieldset><legend>Who are you?</legend>\n{users}</fieldset>\n\
             <p><strong>{app}</strong> asks for:</p>\n<ul>{scopes}</ul>\n\
             <p class=\"actions\"><button name=\"action\" value=\"accept\">Accept</button>\n\
             <button name=\"action\" value=\"decline\" class=\"plain\" formnovalidate>Decline</button></p>\n\
             </form>",
            app = escape(app),
        ),
    )
}

pub(super) fn message(title: &str, text: &str) -> String {
    page(title, &format!("<p>{}</p>", escape(text)))
}

pub(super) fn front() -> String {
    message("Azure emulator", "This port shows sign-in pages. Start at the application that sends you here.")
}

/// A page which sends its fields on, for `response_mode=form_post`.
pub(super) fn form_post(redirect_uri: &str, fields: &[(&str, String)]) -> String {
    let inputs = fields
        .iter()
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)))
        .collect::<Vec<_>>()
        .concat();
    page(
        "Working…",
        &format!(
            "<form method=\"post\" action=\"{}\">{inputs}<button>Continue</button></form>\
             <script>document.forms[0].submit()</script>",
            escape(redirect_uri)
        ),
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · Azure emulator</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n",
        title = escape(title),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0;padding:1rem}\
main{max-width:30rem;margin:0 auto}\
fieldset{border:1px solid;border-radius:.5rem;padding:.5rem 1rem}\
label{display:flex;gap:.75rem;align-items:flex-start;padding:.5rem 0;cursor:pointer}\
input{margin-top:.4rem}\
code{overflow-wrap:anywhere}\
.note{border-left:.25rem solid;padding-left:.75rem}\
.actions{display:flex;gap:1rem}\
button{font:inherit;padding:.6rem 1.4rem;border-radius:.4rem;border:2px solid #0b5cad;background:#0b5cad;color:#fff;cursor:pointer}\
.plain{background:transparent;color:inherit}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let page = sign_in(&World::example(), "<b>app</b>", &[], None);

        assert!(page.contains("&lt;b&gt;app&lt;/b&gt;"));
        assert!(page.contains("value=\"ana@contoso.com\""));
    }
}
