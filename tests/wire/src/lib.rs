//! Client, node and backends in network namespaces: real sockets, every protocol, the real binary.
//!
//! This room knows Pierhead only from outside: its command line, its YAML, its sockets, its admin address. It must
//! not know any crate of ours.

pub mod backend;
pub mod client;
pub mod config;
pub mod gate;
pub mod load;
pub mod machine;
pub mod net;
pub mod netns;
pub mod pki;
pub mod poll;
pub mod street;
