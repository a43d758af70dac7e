//! Guests that serve wasi:http, and what any component may send.

mod access;
mod body;
mod call;
mod egress;
mod patience;
mod request;
mod reuse;
mod server;
mod ticker;
mod tls;
mod worker;

pub(crate) use egress::Egress;
pub(crate) use server::{Served, serve, threads};
pub(crate) use tls::Roots;
