//! The part of the Common Expression Language that the Gateway API's validation rules are written in.
//!
//! A rule is parsed once and evaluated on the JSON value itself, without copies and without calling anything but the
//! few functions below, each evaluation capped. The published CEL crate brings a parser runtime and a value model of
//! its own for what is one hundred rules; a test holds this one to every rule of the vendored schemas: one that does
//! not parse, or that calls what we do not know, fails the build of the schema.
//!
//! Semantics: <https://github.com/google/cel-spec>, and Kubernetes' libraries (`isIP`, `isCIDR`, `format`, escaped names).

mod eval;
mod parse;

pub(crate) use eval::holds;
pub(crate) use parse::{Error as ParseError, Expr, Pattern, parse};
