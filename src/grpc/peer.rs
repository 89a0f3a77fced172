//! Who is calling, as the acceptor found it: never what a request says of itself.

use tonic::{Request, Status};

use super::status;
use crate::caller::Caller;
use crate::tls::Peer;

/// The caller behind the connection this request came by.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| status::unauthenticated("the connection carries no identity"))?;
    match peer.caller() {
        Ok(caller) => Ok(caller.clone()),
        Err(refused) => Err(status::unauthenticated(&refused.to_string())),
    }
}
