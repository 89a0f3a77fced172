//! A job's machine: real git in a home of its own, set up as an image of the platform would be.

use std::collections::BTreeSet;
use std::path::Path;

use azure_emulator::{Options, World};
use tokio::process::Command;

use super::{ACCOUNT, AZDO_BROKER, Given, Ran, Way, run, tool};

pub(crate) const ANALYTICS: &str = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics";
/// Another organization of the same directory, of which the service user is a member too.
pub(crate) const OTHER_ORGANIZATION: &str = "northwind";

/// A job's machine: a home, git, and the way to the emulator.
pub(crate) struct Job {
    pub(crate) given: Given,
    pub(crate) home: tempfile::TempDir,
    /// How git asks for credentials; whichever comes first on the path if nobody cares.
    way: Option<Way>,
}

impl Job {
    pub(crate) async fn ready() -> Self {
        Self::of(None).await
    }

    /// One whose git asks for credentials in this way.
    pub(crate) async fn that_asks(way: Way) -> Self {
        Self::of(Some(way)).await
    }

    async fn of(way: Option<Way>) -> Self {
        // A second organization of the same directory, of which the service user is a member too.
        let mut world = World::example();
        let mut other = world.organizations[0].clone();
        OTHER_ORGANIZATION.clone_into(&mut other.name);
        world.organizations.push(other);
        let given = Given::with(Options { world, ..Options::default() }).await;
        given.link().await;
        let job = Self { given, home: tempfile::tempdir().unwrap(), way };
        let ca = job.given.home.path("emulator-ca.pem").display().to_string();
        let proxy = job.given.emulator.proxy_url();
        for host in ["https://dev.azure.com", "https://contoso.visualstudio.com"] {
            job.git(&["config", "--global", &format!("http.{host}.proxy"), &proxy]).await.done();
            job.git(&["config", "--global", &format!("http.{host}.sslCAInfo"), &ca]).await.done();
        }
        job
    }

    pub(crate) async fn git(&self, args: &[&str]) -> Ran {
        let git = self.way.as_ref().map_or(Path::new("git"), |way| &way.git);
        run(self.tool(git.to_str().unwrap()).args(args)).await
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = tool(program, self.home.path());
        if let Some(way) = &self.way {
            let ours = Path::new(AZDO_BROKER).parent().unwrap().to_owned();
            let path = std::env::var_os("PATH").unwrap();
            let folders =
                way.path(self.home.path()).into_iter().chain([ours]).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders).unwrap());
        }
        command
    }

    /// How tokens travelled to Azure Repos, each way once. (git sends a user name of the URL as Basic too.)
    pub(crate) fn schemes(&self) -> BTreeSet<String> {
        let issued = self.given.requests_for_users().into_iter().filter_map(|request| request.at_issued);
        let issued: Vec<_> = issued.collect();
        let requests = self.given.emulator.requests().into_iter();
        let with_token = requests.filter(|request| {
            let token = request.access_token.as_ref();
            request.path.contains("/_git/") && token.is_some_and(|token| issued.contains(token))
        });
        with_token.filter_map(|request| request.authorization).collect()
    }

    /// `azdo-broker git-setup` writes all that git needs to know.
    pub(crate) async fn set_up(&self) {
        self.set_up_over("job-runner").await;
    }

    pub(crate) async fn set_up_over(&self, socket: &str) {
        let address = self.given.home.address(socket);
        let mut setup = self.tool(AZDO_BROKER);
        setup.args(["git-setup", "--global", "--account", ACCOUNT, "--address", &address]);
        run(&mut setup).await.done();
    }

    /// Pushes to analytics a commit that has a submodule at `url`, at `commit` or one that does not matter.
    pub(crate) async fn push_a_submodule_at(&self, url: &str, commit: Option<&str>) {
        self.git(&["clone", "--quiet", ANALYTICS, "author"]).await.done();
        let modules = format!("[submodule \"evil\"]\n\tpath = evil\n\turl = {url}\n");
        std::fs::write(self.home.path().join("author/.gitmodules"), modules).unwrap();
        let nobodys = "1".repeat(40);
        let link = format!("160000,{},evil", commit.unwrap_or(&nobodys));
        let steps: [&[&str]; 4] = [
            &["add", ".gitmodules"],
            &["update-index", "--add", "--cacheinfo", &link],
            &["-c", "user.name=M", "-c", "user.email=m@evil.test", "commit", "--quiet", "-m", "A trap"],
            &["push", "--quiet"],
        ];
        for step in steps {
            self.git(&[&["-C", "author"], step].concat()).await.done();
        }
    }

    /// Commits one new file.
    pub(crate) async fn commit(&self, folder: &str, file: &str, text: &str) {
        std::fs::write(self.home.path().join(folder).join(file), text).unwrap();
        self.git(&["-C", folder, "add", file]).await.done();
        let author = ["-c", "user.name=A", "-c", "user.email=a@contoso.com"];
        let commit = ["commit", "--quiet", "-m", "Add a file"];
        self.git(&[&["-C", folder][..], &author, &commit].concat()).await.done();
    }

    /// How many git credentials were released so far.
    pub(crate) fn released(&self) -> usize {
        let audit = String::from_utf8(self.given.home.read("audit.jsonl")).unwrap();
        let lines = audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["act"] == "GetGitCredential" && line.to_string().contains("released"))
            .count()
    }
}
