//! azdo-broker.
