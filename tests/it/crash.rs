//! A component that ends untold takes the process with it, in order.

use std::sync::Arc;

use azdo_broker::app;
use azdo_broker::config::Config;
use azdo_broker::lifecycle::Ended;
use azdo_broker::testing::ManualClock;
use azure_emulator::{Emulator, Options};

use crate::support::{Files, PATIENCE};

/// Exit code 1 follows from this (`main.rs`), and sockets that nobody serves any more are gone.
#[tokio::test]
async fn a_component_that_crashes_drains_the_rest_and_is_told() {
    let emulator = Emulator::start(Options::default()).await.unwrap();
    let files = Files::make(&emulator).await;
    let config = Config::read(&files.config()).unwrap();
    let mut bound = app::build(config, Arc::new(ManualClock::default())).await.unwrap();
    let address = bound.admin;
    bound.add_one_that_crashes();

    // Nobody tells it to stop.
    let ended = tokio::time::timeout(PATIENCE, bound.run(std::future::pending())).await.unwrap();

    assert_eq!(ended, Ended::Crashed);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
