//! What is proved on a real cluster (`cargo xtask cluster up`) with Pierhead installed from its chart.
//!
//! This room knows Pierhead only from outside: its manifests, its image, its traffic, the statuses it writes. It must
//! not know any crate of the product.

pub mod api;
pub mod faults;
pub mod figures;
mod front;
pub mod helm;
pub mod ingress;
pub mod lab;
pub mod load;
pub mod machine;
pub mod neighbours;
