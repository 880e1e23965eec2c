//! Compiles the routes of a listener into a table and finds the best match for a request.
//!
//! Pure: no I/O, no clock, and no idea of what is done with the rule that is found. Precedence exists once, as the `Ord`
//! of [`Rank`]. Lookup cost does not grow with the number of routes: host by hash and by label, path by hash and by
//! segment, and then the few candidates of that place in precedence order.

mod condition;
mod hosts;
mod names;
mod paths;
mod rank;
mod table;

pub use condition::{Request, query_value};
pub use hosts::HostMap;
pub use rank::Rank;
pub use table::{Found, RouteTable, Routes};
