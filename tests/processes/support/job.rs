//! A job's machine: real git in a home of its own, set up as an image of the platform would be.

use azure_emulator::{Options, World};

use super::{ACCOUNT, AZDO_BROKER, Given, Ran, run, tool};

pub(crate) const ANALYTICS: &str = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics";
/// Another organization of the same directory, of which the service user is a member too.
pub(crate) const OTHER_ORGANIZATION: &str = "northwind";

/// A job's machine: a home, git, and the way to the emulator.
pub(crate) struct Job {
    pub(crate) given: Given,
    pub(crate) home: tempfile::TempDir,
}

impl Job {
    pub(crate) async fn ready() -> Self {
        // A second organization of the same directory, of which the service user is a member too.
        let mut world = World::example();
        let mut other = world.organizations[0].clone();
        OTHER_ORGANIZATION.clone_into(&mut other.name);
        world.organizations.push(other);
        let given = Given::with(Options { world, ..Options::default() }).await;
        given.link().await;
        let job = Self { given, home: tempfile::tempdir().unwrap() };
        let ca = job.given.home.path("emulator-ca.pem").display().to_string();
        let proxy = job.given.emulator.proxy_url();
        for host in ["https://dev.azure.com", "https://contoso.visualstudio.com"] {
            job.git(&["config", "--global", &format!("http.{host}.proxy"), &proxy]).await.done();
            job.git(&["config", "--global", &format!("http.{host}.sslCAInfo"), &ca]).await.done();
        }
        job
    }

    pub(crate) async fn git(&self, args: &[&str]) -> Ran {
        run(tool("git", self.home.path()).args(args)).await
    }

    /// `azdo-broker git-setup` writes all that git needs to know.
    pub(crate) async fn set_up(&self) {
        self.set_up_over("job-runner").await;
    }

    pub(crate) async fn set_up_over(&self, socket: &str) {
        let address = self.given.home.address(socket);
        let mut setup = tool(AZDO_BROKER, self.home.path());
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
