//! Runs a program to its end, in an environment that holds nothing of the machine's.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::PATIENCE;

pub(crate) const AZDO_BROKER: &str = env!("CARGO_BIN_EXE_azdo-broker");
pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_git-credential-azdo-broker");

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output, if the program was content.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// Standard error, if the program ended with this code.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

/// A program whose home is `home`: no proxy, CA or configuration of the machine reaches it. Our own
/// binaries come first on its path.
pub(crate) fn tool(program: &str, home: &Path) -> Command {
    let ours = Path::new(HELPER).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([ours.to_owned()].into_iter().chain(std::env::split_paths(&path)));
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path.unwrap()).env("HOME", home).env("LANG", "C.UTF-8");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.current_dir(home).kill_on_drop(true);
    command
}

pub(crate) async fn run(command: &mut Command) -> Ran {
    run_with_input(command, b"").await
}

pub(crate) async fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever judges before the end of the input closes the pipe: that is no failure.
    let feeding = async move { drop(stdin.write_all(input).await) };
    let ended = async { tokio::join!(feeding, child.wait_with_output()).1.unwrap() };
    let output = tokio::time::timeout(PATIENCE, ended).await.expect("a program does not end");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
