//! The demo's configuration and policy, as an operator would write them.

use std::path::Path;

use crate::certificates::IDE_BACKEND;
use crate::world::{Emulator, Ports};

/// The broker's file, beside which everything else lies.
pub(crate) fn broker(sockets: &Path, ports: Ports, emulator: &Emulator) -> String {
    let Ports { tcp, links, admin } = ports;
    let Emulator { proxy, ca, browser, .. } = emulator;
    let operator = quote(&sockets.join("operator.sock"));
    let job_runner = quote(&sockets.join("job-runner.sock"));
    let ca = quote(ca);
    format!(
        r#"# Made by script/demo; examples/azdo-broker.toml explains every key.

[listen]
tcp = "127.0.0.1:{tcp}"
links = "127.0.0.1:{links}"
admin = "127.0.0.1:{admin}"

[[listen.socket]]
name = "operator"
path = {operator}
mode = "0600"

[[listen.socket]]
name = "job-runner"
path = {job_runner}
mode = "0600"

[tls]
certificate = "broker.pem"
key = "broker.key"
client_ca = "ca.pem"

# The emulator answers for Microsoft's host names behind this proxy; people's browsers, which have no
# proxy, meet its sign-in page on localhost.
[outgoing]
proxy = "{proxy}"
ca_file = {ca}

[entra]
browser_authority = "{browser}"
"#
    )
}

pub(crate) fn policy() -> String {
    format!(
        r#"# Who may do what. What no rule allows is refused.

[[rule]]
name = "operators of acme"
callers = ["socket:operator"]
accounts = ["acme"]
allow = ["*"]

[[rule]]
name = "jobs of acme"
callers = ["socket:job-runner"]
accounts = ["acme"]
allow = ["release.service_user", "git", "repos", "report"]

[[rule]]
name = "the IDE backend, for acme"
callers = ["{IDE_BACKEND}"]
accounts = ["acme"]
allow = ["release.service_user", "release.developer", "git", "repos", "report", "link", "connections.read"]
"#
    )
}

/// As TOML's basic string.
fn quote(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
