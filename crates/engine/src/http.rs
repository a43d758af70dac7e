//! Guests that serve wasi:http, and what any component may send.

mod egress;
mod server;
mod worker;

pub(crate) use egress::Egress;
pub(crate) use server::{Served, serve, threads};
