//! Guests that serve wasi:http, and what any component may send.

mod access;
mod body;
mod call;
mod egress;
mod hushed;
mod instances;
mod patience;
mod request;
mod reuse;
mod server;
mod single;
mod ticker;
mod tls;
mod traced;
mod worker;

pub(crate) use access::rfc3339;
pub(crate) use egress::Egress;
pub(crate) use server::{Served, serve, threads};
pub(crate) use tls::Roots;
