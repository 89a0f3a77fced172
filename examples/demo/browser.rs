//! A person's browser: pages, forms, cookies and redirects, nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, StatusCode, redirect};
use url::Url;

use crate::form::Form;
use crate::outcome::{Context as _, Outcome, ensure};

pub(crate) struct Browser {
    http: Client,
    /// By host, as browsers do it: a cookie does not know ports.
    cookies: BTreeMap<(String, String), String>,
}

/// Address, fields, and how the browser calls the way from one site to the other.
type Submission = (Url, Vec<(String, String)>, &'static str);

pub(crate) struct Page {
    url: Url,
    status: StatusCode,
    html: String,
}

impl Browser {
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self { http: plain_http()?, cookies: BTreeMap::new() })
    }

    /// Opens an address that somebody typed or clicked.
    pub(crate) async fn open(&mut self, url: &str) -> Outcome<Page> {
        let url: Url = url.parse().context(url)?;
        self.go(Method::GET, url, None, "none").await
    }

    /// Submits the page's form with these choices.
    pub(crate) async fn submit(&mut self, page: &Page, choices: &[(&str, &str)]) -> Outcome<Page> {
        let (action, fields, site) = page.submission(choices)?;
        self.go(Method::POST, action, Some(&fields), site).await
    }

    /// Submits the page's form, and stops at the redirect to this path: the site there is played by others.
    pub(crate) async fn leave_to(
        &mut self,
        page: &Page,
        choices: &[(&str, &str)],
        path: &str,
    ) -> Outcome<Url> {
        let (action, fields, site) = page.submission(choices)?;
        let request = self.http.request(Method::POST, action.clone()).header("sec-fetch-site", site);
        let answer = request.form(&fields).send().await.context("the browser gets no answer")?;
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let url = action.join(location.ok_or_else(|| format!("no redirect but {}", answer.status()))?)?;
        ensure(url.path() == path, || format!("the redirect leads to {}", url.path()))?;
        Ok(url)
    }

    async fn go(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut fields: Option<&[(String, String)]>,
        site: &str,
    ) -> Outcome<Page> {
        for _ in 0..REDIRECTS_MAX {
            ensure(url.host_str() == Some("localhost"), || format!("{url} is not on http://localhost"))?;
            let mut request = self.http.request(method, url.clone()).header("sec-fetch-site", site);
            let cookies = self.cookies_for(&url);
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies);
            }
            if let Some(fields) = fields {
                request = request.form(fields);
            }
            let answer = request.send().await.context("the browser gets no answer")?;
            self.keep_cookies(&url, &answer);
            if !answer.status().is_redirection() {
                let status = answer.status();
                return Ok(Page { url, status, html: answer.text().await? });
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            url = url.join(location.ok_or("a redirect without an address")?)?;
            (method, fields) = (Method::GET, None);
        }
        Err(format!("more than {REDIRECTS_MAX} redirects").into())
    }

    fn cookies_for(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        let ours = self.cookies.iter().filter(|((of, _), _)| of == host);
        ours.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, url: &Url, answer: &reqwest::Response) {
        let host = url.host_str().unwrap_or_default();
        let set = answer.headers().get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let pairs = set.filter_map(|cookie| cookie.split(';').next()?.split_once('='));
        for (name, value) in pairs {
            self.cookies.insert((host.to_owned(), name.to_owned()), value.to_owned());
        }
    }
}

impl Page {
    /// Where the form goes, with what, and how the browser calls that.
    fn submission(&self, choices: &[(&str, &str)]) -> Outcome<Submission> {
        let form = Form::read(&self.html).ok_or_else(|| format!("no form on {}", self.describe()))?;
        ensure(form.method.eq_ignore_ascii_case("post"), || format!("no POST form on {}", self.describe()))?;
        let fields = form.fill(choices)?;
        let action = match &form.action {
            Some(action) => self.url.join(action).context(action)?,
            None => self.url.clone(),
        };
        let site = if action.origin() == self.url.origin() { "same-origin" } else { "same-site" };
        Ok((action, fields, site))
    }

    /// Fails unless the page is good and holds these words.
    pub(crate) fn expect(&self, words: &str) -> Outcome<()> {
        let found = self.status.is_success() && self.html.contains(words);
        ensure(found, || format!("{:?} is not on {}", words, self.describe()))
    }

    /// The address without its query, which may hold a code.
    fn describe(&self) -> String {
        let text = words(&self.html);
        format!(
            "{}{} ({}), which reads: {text}",
            self.url.origin().ascii_serialization(),
            self.url.path(),
            self.status
        )
    }
}

/// A client for `http://` on this machine, whatever proxies the environment names.
pub(crate) fn plain_http() -> Outcome<Client> {
    // Without TLS roots of its own: a machine may have none installed, and nothing here needs them.
    let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).tls_certs_only([]);
    Ok(builder.timeout(ANSWER_LIMIT).build()?)
}

/// A client that reaches Microsoft's hosts where the emulator plays them.
pub(crate) fn behind_proxy(proxy: &str, ca: &Path) -> Outcome<Client> {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca).context(ca.display())?)?;
    let builder = Client::builder().proxy(reqwest::Proxy::all(proxy)?).tls_certs_only([ca]);
    Ok(builder.timeout(ANSWER_LIMIT).build()?)
}

/// A page's text without its tags.
fn words(html: &str) -> String {
    let body = html.split_once("<body").map_or(html, |(_, body)| body);
    let text = body.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text);
    text.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

const REDIRECTS_MAX: usize = 10;
/// A completion asks Entra twice and Azure DevOps once.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
