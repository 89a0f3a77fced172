//! A browser that follows nothing by itself and keeps its one cookie by hand.

use std::net::{Ipv4Addr, SocketAddr};

use reqwest::header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{RequestBuilder, redirect};

/// One browser: its cookie is what tells it from others.
#[derive(Clone)]
pub(crate) struct Browser {
    http: reqwest::Client,
    pub(crate) cookie: Option<String>,
}

/// What a browser got.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Browser {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Port 0: the one of the URL.
            .resolve("localhost", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .build();
        Self { http: http.unwrap(), cookie: None }
    }

    pub(crate) async fn get(&mut self, url: &str) -> Page {
        self.send(self.http.get(url)).await
    }

    /// Presses the button of a page of the same site.
    pub(crate) async fn post(&mut self, url: &str) -> Page {
        self.post_from(url, "same-origin").await
    }

    pub(crate) async fn post_from(&mut self, url: &str, sec_fetch_site: &str) -> Page {
        self.send(self.http.post(url).header("sec-fetch-site", sec_fetch_site)).await
    }

    pub(crate) async fn post_form(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.http.post(url).form(fields)).await
    }

    pub(crate) async fn with_method(&mut self, method: reqwest::Method, url: &str) -> Page {
        self.send(self.http.request(method, url)).await
    }

    async fn send(&mut self, request: RequestBuilder) -> Page {
        let request = match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if let Some(set) = headers.get(SET_COOKIE) {
            self.cookie = set.to_str().unwrap().split(';').next().map(str::to_owned);
        }
        Page { status, headers, body: response.text().await.unwrap() }
    }
}

impl Page {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header(LOCATION.as_str())
    }
}
