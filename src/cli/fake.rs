//! A broker on a Unix socket that answers as a test says, and a command run against it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post_service;
use clap::Parser as _;
use jiff::Timestamp;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Ask, Command, Console, Exit, GlobalArgs};

#[derive(Default)]
pub(super) struct Fake {
    routes: Router,
}

#[derive(clap::Parser)]
struct Argv {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

pub(super) struct Run {
    args: Vec<String>,
    person: Option<Ask>,
}

#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

impl Fake {
    pub(super) fn on<M, R>(
        mut self,
        method: &str,
        answer: impl Fn(M) -> Result<R, Status> + Send + Sync + 'static,
    ) -> Self
    where
        M: prost::Message + Default + Send + 'static,
        R: prost::Message + Default + Send + 'static,
    {
        let answer = Arc::new(answer);
        let service = tower::service_fn(move |request: http::Request<axum::body::Body>| {
            let answer = answer.clone();
            let unary = tower::service_fn(move |request: Request<M>| {
                let answered = answer(request.into_inner()).map(Response::new);
                async move { answered }
            });
            async move {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<R, M>::default());
                Ok::<http::Response<Body>, Infallible>(grpc.unary(unary, request).await)
            }
        });
        self.routes = self.routes.route(&format!("/azdo.broker.v1.{method}"), post_service(service));
        self
    }

    /// A method that answers one message after the other, and then goes on to say nothing or fails.
    pub(super) fn on_stream<M, R>(
        mut self,
        method: &str,
        answer: impl Fn(M) -> Vec<Result<R, Status>> + Send + Sync + 'static,
    ) -> Self
    where
        M: prost::Message + Default + Send + 'static,
        R: prost::Message + Default + Send + 'static,
    {
        let answer = Arc::new(answer);
        let service = tower::service_fn(move |request: http::Request<axum::body::Body>| {
            let answer = answer.clone();
            let stream = tower::service_fn(move |request: Request<M>| {
                let told = tokio_stream::iter(answer(request.into_inner()));
                async move { Ok::<_, Status>(Response::new(told)) }
            });
            async move {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<R, M>::default());
                Ok::<http::Response<Body>, Infallible>(grpc.server_streaming(stream, request).await)
            }
        });
        self.routes = self.routes.route(&format!("/azdo.broker.v1.{method}"), post_service(service));
        self
    }

    fn serve(self, path: &std::path::Path) {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let server = tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::from(self.routes))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
    }
}

impl Run {
    pub(super) fn new(args: &[&str]) -> Self {
        Self { args: Vec::new(), person: None }.args(&["azdo-broker", "--account=acme"]).args(args)
    }

    pub(super) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    pub(super) fn with_person(mut self, person: Ask) -> Self {
        self.person = Some(person);
        self
    }

    pub(super) async fn against(mut self, broker: Fake) -> Ran {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("b.sock");
        broker.serve(&socket);
        self.args.insert(1, format!("--address=unix:{}", socket.display()));
        let argv = Argv::parse_from(&self.args);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let console = &mut Console {
            out: &mut out,
            err: &mut err,
            person: self.person,
            json: argv.global.json,
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            look_every: Duration::ZERO,
        };
        let exit = super::run(&argv.global, argv.command, console).await;
        Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }
}
